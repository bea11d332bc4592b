"""The released programs' formulations in plain PyTorch, to time our encoders against.

Written anew after the paper (§3.2) and the behaviour of the released TrajViT program
(github.com/RAIVNLab/trajvit), in its parameter names. `golden_error` and `vit3d_golden_error`
compare with numbers which that program printed: what is timed must first be right.

Shape letters: b videos, t frames of 3 x h x w pixels, label grids of y x x cells, n masks a
frame (0 = none), m trajectories, s = 1 + m tokens, c coordinates, d channels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from benchmarks.parts.encoder_jax import LEARNING_RATE
from benchmarks.parts.layers_torch import (
    Encoder,
    FrameTokenizer,
    PositionEncoder,
    Resampler,
    boxes,
    centres,
    final_norm,
    masks_of,
)
from benchmarks.parts.timing import Contender, peak_growth
from trajvit_jax.convert.sizes import released_settings, vit3d_settings
from trajvit_jax.models.settings import EncoderSettings, ResNetSettings

# Weights that the released checkpoints hold and their forward pass does not use.
_UNUSED = re.compile(r"(^|\.)(vit\.(embeddings|layernorm|pooler)|vit2d)\.|num_batches_tracked$")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Weights = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TrajViTSizes:
    """Sizes and switches of `TrajViTTorch`; the defaults are the paper's.

    Attributes:
      boxes: the position branch reads bounding boxes; centres otherwise.
      mask_padding: padding rows are hidden from the encoder's attention.
    """

    encoder: EncoderSettings
    resnet: ResNetSettings = ResNetSettings()
    appearance_depth: int = 1
    position_depth: int = 1
    rotary: bool = True
    boxes: bool = True
    mask_padding: bool = True


class Pooled(NamedTuple):
    """What is known of every mask of every frame; row 0 stands for 'absent'."""

    features: Float[Tensor, "b t n d"]
    coordinates: Float[Tensor, "b t n c"]


class TokenEncoder(nn.Module):
    def __init__(self, settings: EncoderSettings):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, settings.width))
        self.vit = nn.ModuleDict({"encoder": Encoder(settings)})


class TrajViTTorch(nn.Module):
    """TrajViT as the released program formulates it: dense masks, gathered features.

    `forward` is `encode(*resample(pool(resnet(video), ids), graph))`.
    """

    def __init__(self, sizes: TrajViTSizes):
        super().__init__()
        self.sizes, encoder = sizes, sizes.encoder
        perceiver = (encoder.width, encoder.heads)
        self.appearance_tokenizer = FrameTokenizer(sizes.resnet, encoder.width)
        self.appearance_token_mapper = Resampler(
            *perceiver, sizes.appearance_depth, rotary=sizes.rotary
        )
        self.pos_encoder = PositionEncoder(*perceiver, sizes.position_depth, rotary=sizes.rotary)
        self.vision_encoder = TokenEncoder(encoder)
        self.norm = final_norm(encoder)

    def resnet(self, video: Float[Tensor, "b t 3 h w"]) -> list[Float[Tensor, "bt _ _ _"]]:
        """The four stages of all frames of all videos."""
        return self.appearance_tokenizer.resnet(video.flatten(0, 1).contiguous())

    def pool(self, stages: list[Tensor], ids: Integer[Tensor, "b t y x"]) -> Pooled:
        """One feature map of the stages, its mean over every mask, and the mask's place."""
        features = self.appearance_tokenizer.feature_map(stages, tuple(ids.shape[2:]))
        features = features.reshape(*ids.shape[:2], -1, features.shape[-1])
        masks = masks_of(ids)
        weights = masks.flatten(3).to(features.dtype)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        coordinates = boxes(masks) if self.sizes.boxes else centres(masks)
        return Pooled(weights @ features, coordinates.to(features.dtype))

    def resample(
        self, pooled: Pooled, graph: Integer[Tensor, "b m t"]
    ) -> tuple[Float[Tensor, "b m d"], Bool[Tensor, "b m"]]:
        """One token a trajectory, and which rows of `graph` are no padding.

        Args:
          pooled: of `pool`.
          graph: each trajectory's id in each frame, 0 = absent.
        """
        videos = torch.arange(len(graph), device=graph.device)[:, None, None]
        frames = torch.arange(graph.shape[2], device=graph.device)
        present = graph > 0
        valid = present.any(-1)
        # As released: rows of padding see their first frames, which are all zeros.
        present = present | (~valid[..., None] & (frames < 10))
        appearance = self.appearance_token_mapper(pooled.features[videos, frames, graph], present)
        coordinates = self.pos_encoder.embed(pooled.coordinates)[videos, frames, graph]
        position = self.pos_encoder.motion_token_mapper(coordinates, present)
        return appearance + position, valid

    def encode(
        self, tokens: Float[Tensor, "b m d"], valid: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b s d"]:
        """States of CLS and of every trajectory."""
        cls = self.vision_encoder.cls_token.expand(len(tokens), -1, -1)
        x = torch.cat([cls, tokens], 1)
        mask = F.pad(valid, (1, 0), value=True)[:, None, None] if self.sizes.mask_padding else None
        return self.norm(self.vision_encoder.vit["encoder"](x, mask))

    def forward(
        self,
        video: Float[Tensor, "b t 3 h w"],
        ids: Integer[Tensor, "b t y x"],
        graph: Integer[Tensor, "b m t"],
    ) -> Float[Tensor, "b s d"]:
        return self.encode(*self.resample(self.pool(self.resnet(video), ids), graph))


class ViT3DTorch(nn.Module):
    """Space-time patches in a plain ViT; CLS has no position."""

    def __init__(self, encoder: EncoderSettings, *, patch: int, tubelet: int, tokens: int):
        super().__init__()
        width, size = encoder.width, (tubelet, patch, patch)
        self.patch_embed_3d = nn.Conv3d(3, width, size, size)
        # One row is never used: the released table is a 2-D ViT's with its CLS row, repeated.
        self.positional_embeddings_3d = nn.Parameter(0.02 * torch.randn(1, tokens + 1, width))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = Encoder(encoder)
        self.norm = final_norm(encoder)

    def embed(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b s d"]:
        """CLS and the patches in (t, h, w) order with their positions."""
        patches = self.patch_embed_3d(video).flatten(2).transpose(1, 2)
        patches = patches + self.positional_embeddings_3d[:, : patches.shape[1]]
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1)

    def forward(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b s d"]:
        return self.norm(self.encoder(self.embed(video), None))


def trajvit(encoder: EncoderSettings) -> TrajViTTorch:
    """Random weights, evaluation mode: the paper's model with this encoder."""
    return TrajViTTorch(TrajViTSizes(encoder)).eval()


def vit3d(encoder: EncoderSettings, *, frames: int = 16, image_size: int = 224) -> ViT3DTorch:
    """Random weights, evaluation mode: tubelets of 2 x 16 x 16 pixels."""
    tokens = frames // 2 * (image_size // 16) ** 2
    return ViT3DTorch(encoder, patch=16, tubelet=2, tokens=tokens).eval()


def load_released(model: nn.Module, weights: Weights) -> None:
    """Fills a model with weights under the released names.

    Raises:
      KeyError: a weight is missing, or left over and not one that the released programs ignore.
    """
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    left = model.load_state_dict(state, strict=False)
    missing, unexpected = (
        [name for name in names if not _UNUSED.search(name)]
        for names in (left.missing_keys, left.unexpected_keys)
    )
    if missing or unexpected:
        raise KeyError(f"missing: {missing}; left over: {unexpected}")


def released_sizes(
    weights: Weights, *, heads: int, passes: int = 1, **switches: bool
) -> TrajViTSizes:
    """The sizes that released TrajViT weights have.

    Args:
      weights: under the released names.
      heads: of the encoder and the resamplers.
      passes: how often the encoder runs; the released program runs it twice.
      switches: those of `TrajViTSizes`.
    """
    settings = released_settings(weights, heads=heads, encoder_passes=passes)
    return TrajViTSizes(
        encoder=settings.encoder,
        resnet=settings.trajvit.resnet,
        appearance_depth=settings.trajvit.resampler.depth,
        position_depth=settings.trajvit.position_depth,
        **switches,
    )


def _under(file: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: file[name] for name in file if name.startswith(prefix)}


def _error(pairs: Iterable[tuple[Tensor, np.ndarray]]) -> float:
    """Worst max |a - b| / max(1, max |b|)."""
    errors = [
        np.abs(actual.numpy() - expected).max() / max(1.0, np.abs(expected).max())
        for actual, expected in pairs
    ]
    return float(max(errors))


def golden_clips(file: Weights) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Video, ids and graph behind each group of outputs: 16, 8 and 32 frames, and an image."""
    pixels = torch.from_numpy(file["in/video_u8"]).float() / 255
    mean, std = (torch.tensor(value)[:, None, None] for value in (_IMAGENET_MEAN, _IMAGENET_STD))
    video = (pixels - mean) / std
    ids, graph = (torch.from_numpy(file[name]).long() for name in ("in/segmask", "in/graph"))
    image = torch.from_numpy(file["in_image/graph"]).long()
    twice = torch.cat([video, video.flip(1)], 1), torch.cat([ids, ids.flip(1)], 1)
    return {
        "out": (video, ids, graph),
        "out_t8": (video[:, :8], ids[:, :8], graph[..., :8]),
        "out_t32": (*twice, torch.cat([graph, graph.flip(2)], 2)),
        "out_image": (video[:, :1], ids[:, :1], image),
    }


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On tiny tensors threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
@torch.inference_mode()
def golden_error(path: Path) -> float:
    """Worst relative error over every output in `trajvit_tiny.npz`, with its weights.

    Outputs are named GROUP/rotR_bbB_MASK_PASSES: R rotary, B boxes, MASK 'eager' where padding
    is masked and 'sdpa' where it is not, PASSES 'once' or 'twice' through the encoder.
    """
    with np.load(path, allow_pickle=False) as npz:
        file = dict(npz)
    clips, heads = golden_clips(file), int(file["heads"])
    pattern = re.compile(r"(out\w*)/rot([01])_bb([01])_(eager|sdpa)_(once|twice)")

    def results() -> Iterator[tuple[Tensor, np.ndarray]]:
        for match in filter(None, map(pattern.fullmatch, file)):
            group, rotary, box, mask, passes = match.groups()
            # The file holds the weights of both kinds of frame positions.
            other = "media_pos_emb" if rotary == "1" else "rotary_emb"
            weights = {k: v for k, v in _under(file, "sd/").items() if other not in k}
            sizes = released_sizes(
                weights,
                heads=heads,
                passes=1 if passes == "once" else 2,
                rotary=rotary == "1",
                boxes=box == "1",
                mask_padding=mask == "eager",
            )
            model = TrajViTTorch(sizes).eval()
            load_released(model, weights)
            yield model(*clips[group]), file[match.string]

    return _error(results())


@_one_thread()
@torch.inference_mode()
def vit3d_golden_error(path: Path) -> float:
    """Worst relative error over the outputs with CLS for 4 and 8 frames in `vit3d_vivit.npz`."""
    with np.load(path, allow_pickle=False) as npz:
        file = dict(npz)
    video = torch.from_numpy(file["in/video_u8"]).float() / 127.5 - 1
    heads = file["vit3d_poolcls_norm0/attn_l0"].shape[1]

    def results() -> Iterator[tuple[Tensor, np.ndarray]]:
        for norm in (0, 1):
            weights = _under(file, "vit3d/sd/")
            if not norm:
                del weights["norm.weight"], weights["norm.bias"]
            sizes = vit3d_settings(weights, heads=heads, image_size=video.shape[-1])
            tokens = weights["positional_embeddings_3d"].shape[1] - 1
            tubes = dataclasses.asdict(sizes.vit3d)
            model = ViT3DTorch(sizes.encoder, **tubes, tokens=tokens).eval()
            load_released(model, weights)
            for frames in (4, 8):
                expected = file[f"vit3d_poolcls_norm{norm}/out_t{frames}"]
                yield model(video[:, :, :frames]), expected

    return _error(results())


def contenders(
    encoder: EncoderSettings,
    video: np.ndarray,
    labels: np.ndarray,
    trajectories: int,
    *,
    train: bool,
) -> list[Contender]:
    """Forward passes (and the stages of TrajViT's), or training steps, of both models.

    Args:
      encoder: of both models.
      video: normalized pixels [1, t, h, w, 3].
      labels: trajectory of each cell [1, t, y, x]; the same id in all frames.
      trajectories: rows of the graph.
      train: both passes and AdamW; else the forward pass in inference mode.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(video.transpose(0, 1, 4, 2, 3))).float()
    ids = torch.from_numpy(labels.astype(np.int64))
    number = torch.arange(1, trajectories + 1)[None, :, None]
    present = torch.stack([(ids == one).any(-1).any(-1) for one in number.flatten()], 1)
    graph = torch.where(present, number, 0)
    model = trajvit(encoder)
    patches = vit3d(encoder, frames=video.shape[1], image_size=video.shape[2])
    clip = pixels.transpose(1, 2).contiguous()
    if train:
        passes = {
            "PyTorch": _training_step(model, pixels, ids, graph),
            "ViT3D PyTorch": _training_step(patches, clip),
        }
        return [
            Contender("train step", name, run, memory=peak_growth(run))
            for name, run in passes.items()
        ]

    def inferred(stage: str, name: str, run: Callable[[], object]) -> Contender:
        forward = torch.inference_mode()(run)
        return Contender(stage, name, forward, memory=peak_growth(forward))

    with torch.inference_mode():
        maps = model.resnet(pixels)
        pooled = model.pool(maps, ids)
        tokens, valid = model.resample(pooled, graph)
    return [
        inferred("resnet", "PyTorch", lambda: model.resnet(pixels)),
        inferred("pooling", "PyTorch", lambda: model.pool(maps, ids)),
        inferred("resamplers", "PyTorch", lambda: model.resample(pooled, graph)),
        inferred("transformer", "PyTorch", lambda: model.encode(tokens, valid)),
        inferred("forward", "PyTorch", lambda: model(pixels, ids, graph)),
        inferred("forward", "ViT3D PyTorch", lambda: patches(clip)),
    ]


def _training_step(model: nn.Module, *inputs: Tensor) -> Callable[[], None]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(*inputs).square().mean().backward()
        optimizer.step()

    return run

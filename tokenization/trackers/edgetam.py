"""EdgeTAM (Zhou et al. 2025, arXiv 2501.07256) as a tracker of many objects, by transformers.

`EdgeTamVideoModel` follows objects one by one. Its modules take batches, but what joins them
assumes a batch of one in four places; those are put right here, with the same numbers for each
object (tests/torch/test_edgetam.py). Imports torch: reached through `backends` alone.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch.nn import functional

from tokenization import torchvision_shim
from tokenization.backends import MissingBackend
from tokenization.devices import Device
from tokenization.learned import EdgeTamSettings, LearnedSettings
from tokenization.trackers.batched import BatchedTracker
from tokenization.weights import WeightsError

torchvision_shim.make_importable()

from transformers import EdgeTamVideoConfig, EdgeTamVideoModel  # noqa: E402
from transformers.models.edgetam_video.modeling_edgetam_video import (  # noqa: E402
    NO_OBJ_SCORE,
    EdgeTamVideoImageSegmentationOutput,
    EdgeTamVideoPerceiverResampler,
    window_partition,
)


class ObjectBatches(EdgeTamVideoModel):
    """The model for one object in each place of the batch."""

    def __init__(self, config: EdgeTamVideoConfig) -> None:
        super().__init__(config)
        self.memory_attention.register_forward_hook(_objects_first)
        self.spatial_perceiver._forward_2d = types.MethodType(
            _summarize_windows, self.spatial_perceiver
        )

    def _single_frame_forward(
        self,
        *,
        image_embeddings: list[torch.Tensor],
        input_masks: torch.Tensor | None = None,
        multimask_output: bool = True,
        **_: Any,
    ) -> EdgeTamVideoImageSegmentationOutput:
        """As the original, whose choice of the best mask mixes the objects of a batch."""
        n = len(image_embeddings[-1])
        device = image_embeddings[-1].device
        size = self.prompt_encoder.mask_input_size
        if input_masks is not None and input_masks.shape[-2:] != size:
            input_masks = functional.interpolate(
                input_masks.float(), size, mode="bilinear", align_corners=False, antialias=True
            )
        sparse, dense = self.prompt_encoder(
            input_points=torch.zeros(n, 1, 1, 2, device=device),  # a point that is none
            input_labels=-torch.ones(n, 1, 1, dtype=torch.int32, device=device),
            input_boxes=None,
            input_masks=input_masks,
        )
        logits, quality, tokens, scores = self.mask_decoder(
            image_embeddings=image_embeddings[-1],
            image_positional_embeddings=self.get_image_wide_positional_embeddings().repeat(
                n, 1, 1, 1
            ),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            high_resolution_features=image_embeddings[:-1],
        )
        there = scores > 0
        best = quality[:, 0].argmax(-1)
        every = torch.arange(n, device=device)
        low = torch.where(there[..., None], logits[every, 0, best][:, None], NO_OBJ_SCORE).float()
        high = functional.interpolate(
            low, (self.image_size, self.image_size), mode="bilinear", align_corners=False
        )
        pointer = self.object_pointer_proj(tokens[every, 0, best][:, None])
        pointer = torch.where(there, pointer, self.no_object_pointer.to(pointer.dtype))
        return EdgeTamVideoImageSegmentationOutput(
            iou_scores=quality,
            pred_masks=low,
            high_res_masks=high,
            object_pointer=pointer,
            object_score_logits=scores,
            image_embeddings=image_embeddings,
        )

    def _use_mask_as_output(
        self, *inputs: Any, **named: Any
    ) -> EdgeTamVideoImageSegmentationOutput:
        """As the original, which pairs every object's pointer with the presence of every one."""
        found = super()._use_mask_as_output(*inputs, **named)
        found.object_pointer = torch.diagonal(found.object_pointer).T[:, None]
        found.object_score_logits = found.object_score_logits[..., None]
        return found


def _summarize_windows(
    self: EdgeTamVideoPerceiverResampler, hidden_states: Float[torch.Tensor, "n c h w"]
) -> tuple[Float[torch.Tensor, "n l c"], Float[torch.Tensor, "n l c"]]:
    """As the original `_forward_2d`, which cannot view the latents of several objects as one."""
    n, channels, height, _ = hidden_states.shape
    side = math.isqrt(self.num_latents_2d)
    windows, _ = window_partition(hidden_states.permute(0, 2, 3, 1), height // side)
    latents = self.latents_2d.repeat(n, 1)[:, None]
    for layer in self.layers:
        latents = layer(latents, windows.flatten(1, 2), positional_encoding=None)
    shape = torch.Size((n, channels, side, side))
    positions = self.positional_encoding(shape, latents.device, latents.dtype)
    return (
        self.layer_norm(latents.view(n, -1, channels)),
        positions.to(hidden_states.dtype).flatten(2).transpose(1, 2),
    )


def _objects_first(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
    """Undoes the last swap of memory attention, after which one object alone lies right."""
    return output.transpose(0, 1)


class EdgeTamModel:
    """A `MaskModel` of EdgeTAM's modules.

    Args:
      model: in evaluation mode, on its device.
    """

    def __init__(self, model: ObjectBatches) -> None:
        self.side = model.config.image_size
        self._model = model
        self._positions: list[torch.Tensor] = []

    def encode(self, images: Float[torch.Tensor, "k 3 s s"]) -> list[torch.Tensor]:
        """Feature vectors of three levels, the finest first, as `k cells c`."""
        found = self._model.get_image_features(images, return_dict=True)
        # Those of all images are the same.
        self._positions = [part[:, :1] for part in found.fpn_position_encoding]
        return [level.transpose(0, 1) for level in found.fpn_hidden_states]

    def follow(
        self,
        features: Sequence[torch.Tensor],
        frames: Int64[np.ndarray, "n t"],
        masks: Float[torch.Tensor, "n 1 s s"],
    ) -> Iterator[Float[torch.Tensor, "n 1 r r"]]:
        """Logits after the first frame, at a quarter of the images' side; see `MaskModel`."""
        n, length = frames.shape
        device = features[0].device
        bank: dict[str, dict[int, dict[str, Any]]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        for t in range(length):
            index = torch.from_numpy(frames[:, t]).to(device)
            seen = {
                "vision_feats": [level[index].transpose(0, 1) for level in features],
                "vision_pos_embeds": [part.expand(-1, n, -1) for part in self._positions],
            }
            session = types.SimpleNamespace(
                num_frames=length,
                output_dict_per_obj={0: bank},
                cache=types.SimpleNamespace(get_vision_features=lambda _, seen=seen: seen),
            )
            found = self._model._run_single_frame_inference(
                inference_session=session,
                frame_idx=t,
                obj_idx=0,
                batch_size=1,
                is_init_cond_frame=t == 0,
                point_inputs=None,
                mask_inputs=masks if t == 0 else None,
                reverse=False,
                run_mem_encoder=t < length - 1,
            )
            kept = ("maskmem_features", "maskmem_pos_enc", "object_pointer")
            memory = {name: found[name] for name in kept}
            bank["non_cond_frame_outputs" if t else "cond_frame_outputs"][t] = memory
            # Older ones are out of the model's reach; their pointers are not.
            if (old := t - self._model.num_maskmem + 1) > 0:
                del bank["non_cond_frame_outputs"][old]["maskmem_features"]
            if t:
                yield found["pred_masks"]


def build_model(
    settings: EdgeTamSettings, device: Device, paths: Sequence[Path] | None
) -> ObjectBatches:
    """EdgeTAM for images of a size.

    Args:
      settings: the size.
      device: where it goes.
      paths: safetensors and configuration, as on the hub; None = random weights, behind a
        small Hiera in place of RepViT.

    Raises:
      WeightsError: weights of something else.
      MissingBackend: timm is not installed, which the published encoder is from.
    """
    try:
        config = EdgeTamVideoConfig() if paths is None else _read(paths[1])
        _resize(config, settings.resolution)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = ObjectBatches(config)
    except ImportError as error:
        raise MissingBackend(
            "the encoder of EdgeTAM's published weights needs the package 'timm', which is not "
            "installed: `make sam2` installs it; or choose tracker 'sam2' or 'flow' "
            f"({str(error).strip().partition(chr(10))[0]})"
        ) from error
    if paths is not None:
        try:
            model.load_state_dict(safetensors.torch.load_file(paths[0]))
        except (safetensors.SafetensorError, RuntimeError) as error:
            raise WeightsError(
                f"{paths[0]} are no weights of EdgeTAM ({str(error).partition(chr(10))[0]}); "
                "download them again"
            ) from error
    device.compile(model.vision_encoder)
    return model.eval().to(device.torch)


def _read(path: Path) -> EdgeTamVideoConfig:
    try:
        return EdgeTamVideoConfig.from_dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} is no configuration of EdgeTAM: {error}") from error


def _resize(config: EdgeTamVideoConfig, side: int) -> None:
    """Puts another image size wherever the configuration has one."""
    config.image_size = config.prompt_encoder_config.image_size = side
    config.vision_config.backbone_feature_sizes = [[side // s] * 2 for s in (4, 8, 16)]
    config.memory_attention_rope_feat_sizes = [side // 16] * 2
    if hasattr(config.vision_config, "backbone_config"):
        inner = config.vision_config.backbone_config
        if hasattr(inner, "image_size"):
            inner.image_size = [side, side]


def make(settings: LearnedSettings, paths: Sequence[Path] | None) -> BatchedTracker:
    """The tracker of this name; without paths to its files, with random weights."""
    device = Device(settings.running)
    model = EdgeTamModel(build_model(settings.edgetam, device, paths))
    return BatchedTracker("edgetam", model, device, settings.running)

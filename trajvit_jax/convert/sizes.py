"""A model's settings, read off the shapes of a checkpoint's arrays.

Shapes do not tell the number of attention heads, nor some switches of the released program:
those are arguments.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResamplerSettings,
    ResNetSettings,
    TextSettings,
    TrajViTSettings,
    ViT3DSettings,
    ViViTSettings,
)

_FRAMES = 16  # the released programs are built for them
_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16}  # of the ViT and BERT sizes that are in use


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """Arrays below a prefix of their names."""

    found: Mapping[str, np.ndarray]
    prefix: str

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of an array.

        Raises:
          ValueError: no such array, or one of another number of axes.
        """
        name = self.prefix + name
        if name not in self.found:
            raise ValueError(
                f"{name!r} is not among the {len(self.found)} arrays, and the model's sizes are "
                "read off it"
            )
        shape = self.found[name].shape
        if len(shape) != axes:
            raise ValueError(f"{name!r} must have {axes} axes, found shape {list(shape)}")
        return shape

    def count(self, pattern: str) -> int:
        """One more than the largest number in the pattern's group; 0 if no name matches."""
        whole = re.compile(re.escape(self.prefix) + pattern)
        found = (whole.fullmatch(name) for name in self.found)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def has(self, pattern: str) -> bool:
        """Whether a name begins so."""
        whole = re.compile(re.escape(self.prefix) + pattern)
        return any(whole.match(name) for name in self.found)


def heads_of(width: int) -> int:
    """Attention heads of the usual transformer of this width.

    Raises:
      ValueError: a width that none of them has.
    """
    if width not in _HEADS:
        known = ", ".join(f"{width} has {heads}" for width, heads in _HEADS.items())
        raise ValueError(
            f"how many attention heads a transformer of width {width} has is not in its arrays "
            f"({known}); say it (num_attention_heads in the config it was trained with): --heads, "
            "or --text-heads for the text side of a video-text model"
        )
    return _HEADS[width]


def resnet_settings(found: Mapping[str, np.ndarray], prefix: str = "") -> ResNetSettings:
    """Sizes of Hugging Face's `ResNetModel`.

    Raises:
      ValueError: an array that sizes are read off is missing.
    """
    arrays = _Arrays(found, prefix)
    stages = r"encoder\.stages\."
    depths = [
        arrays.count(rf"{stages}{stage}\.layers\.(\d+)\..*")
        for stage in range(arrays.count(rf"{stages}(\d+)\..*"))
    ]
    bottleneck = arrays.has(rf"{stages}0\.layers\.0\.layer\.2\.")
    last = 2 if bottleneck else 1
    return ResNetSettings(
        stem=arrays.shape("embedder.embedder.convolution.weight", 4)[0],
        widths=tuple(
            arrays.shape(f"encoder.stages.{stage}.layers.0.layer.{last}.convolution.weight", 4)[0]
            for stage in range(len(depths))
        ),
        depths=tuple(depths),
        block="bottleneck" if bottleneck else "basic",
    )


def text_settings(
    found: Mapping[str, np.ndarray], prefix: str = "", *, heads: int | None = None
) -> TextSettings:
    """Sizes of Hugging Face's `BertModel`, or of the released text tower.

    The tower runs the layers before its first with cross-attention, which the array names show.

    Args:
      found: arrays by name.
      prefix: before the names, with its dot.
      heads: attention heads; None = as is usual at that width.

    Raises:
      ValueError: an array that sizes are read off is missing, or `heads` is needed.
    """
    arrays = _Arrays(found, prefix)
    vocabulary, width = arrays.shape("embeddings.word_embeddings.weight", 2)
    positions, _ = arrays.shape("embeddings.position_embeddings.weight", 2)
    depth = arrays.count(r"encoder\.layer\.(\d+)\..*")
    fusion = [layer for layer in range(depth) if arrays.has(rf"encoder\.layer\.{layer}\.cross")]
    return TextSettings(
        vocabulary=vocabulary,
        length=min(TextSettings.length, positions),
        positions=positions,
        width=width,
        depth=depth,
        heads=heads or heads_of(width),
        mlp=arrays.shape("encoder.layer.0.intermediate.dense.weight", 2)[0],
        layers_run=min(fusion, default=0),
    )


def _encoder_settings(
    arrays: _Arrays, layer: str, *, heads: int | None, final_norm: bool, passes: int = 1
) -> EncoderSettings:
    """Sizes of the layers of Hugging Face's `ViTModel`, whose names begin with `layer`."""
    mlp, width = arrays.shape(f"{layer}.0.intermediate.dense.weight", 2)
    return EncoderSettings(
        width=width,
        depth=arrays.count(rf"{re.escape(layer)}\.(\d+)\..*"),
        heads=heads or heads_of(width),
        mlp=mlp,
        final_norm=final_norm,
        passes=passes,
    )


def vit_settings(
    found: Mapping[str, np.ndarray], prefix: str = "", *, heads: int | None = None
) -> ModelSettings:
    """Sizes of Hugging Face's `ViTModel`, as a ViT3D of one frame with tubelets of one frame.

    Raises:
      ValueError: an array that sizes are read off is missing, `heads` is needed, or patches
        that are not square.
    """
    arrays = _Arrays(found, prefix)
    patch = _square(arrays, "embeddings.patch_embeddings.projection.weight", 4)
    side = _side(arrays, "embeddings.position_embeddings")
    return ModelSettings(
        name="vit3d",
        image_size=side * patch,
        frames=1,
        encoder=_encoder_settings(arrays, "encoder.layer", heads=heads, final_norm=True),
        vit3d=ViT3DSettings(patch=patch, tubelet=1),
    )


def vit3d_settings(
    found: Mapping[str, np.ndarray],
    prefix: str = "",
    *,
    heads: int | None = None,
    image_size: int = ModelSettings.image_size,
) -> ModelSettings:
    """Sizes of the released ViT3D.

    Args:
      found: arrays by name.
      prefix: before the names, with its dot.
      heads: attention heads; None = as is usual at that width.
      image_size: pixels a side, where the image ViT is not in the file, which tells.

    Raises:
      ValueError: an array that sizes are read off is missing, `heads` is needed, patches that
        are not square, or a position table that is for no whole number of frames.
    """
    arrays = _Arrays(found, prefix)
    patch = _square(arrays, "patch_embed_3d.weight", 5)
    tubelet = arrays.shape("patch_embed_3d.weight", 5)[2]
    if f"{prefix}vit2d.embeddings.position_embeddings" in found:
        image_size = patch * _side(arrays, "vit2d.embeddings.position_embeddings")
    rows = arrays.shape("positional_embeddings_3d", 3)[1] - 1
    frames, rest = divmod(rows, (image_size // patch) ** 2)
    if rest or not frames:
        raise ValueError(
            f"a position table of {rows} + 1 rows is for no whole number of frames of "
            f"{image_size} px in {patch} px patches; pass the image size"
        )
    return ModelSettings(
        name="vit3d",
        image_size=image_size,
        frames=frames * tubelet,
        encoder=_encoder_settings(
            arrays, "encoder.layer", heads=heads, final_norm=f"{prefix}norm.weight" in found
        ),
        vit3d=ViT3DSettings(patch=patch, tubelet=tubelet),
    )


def vivit_settings(
    found: Mapping[str, np.ndarray],
    prefix: str = "",
    *,
    heads: int | None = None,
    image_size: int = ModelSettings.image_size,
) -> ModelSettings:
    """Sizes of the released ViViT: its factorised encoder.

    Args:
      found: arrays by name.
      prefix: before the names, with its dot.
      heads: attention heads; None = as is usual at that width.
      image_size: pixels a side, of which the position table tells the number of patches.

    Raises:
      ValueError: an array that sizes are read off is missing, `heads` is needed, or an image
        that the patches do not fill.
    """
    arrays = _Arrays(found, prefix)
    _, steps, cells, width = arrays.shape("pos_embedding", 4)
    pixels = arrays.shape("to_patch_embedding.2.weight", 2)[1]
    side = round(cells**0.5)
    patch = image_size // side
    tubelet, rest = divmod(pixels, 3 * max(patch, 1) ** 2)
    if side * side != cells or image_size % side or rest or not tubelet:
        raise ValueError(
            f"{cells} patches of {pixels} numbers do not fill an image of {image_size} px; pass "
            "the image size"
        )
    heads = heads or heads_of(width)
    inner = arrays.shape("spatial_transformer.layers.0.0.to_qkv.weight", 2)[0] // 3
    spatial, temporal = (
        arrays.count(rf"{part}_transformer\.layers\.(\d+)\..*") for part in ("spatial", "temporal")
    )
    return ModelSettings(
        name="vivit",
        image_size=image_size,
        frames=steps * tubelet,
        encoder=EncoderSettings(
            width=width,
            depth=spatial + temporal,
            heads=heads,
            mlp=arrays.shape("spatial_transformer.layers.0.1.net.1.weight", 2)[0],
            layer_norm_eps=1e-5,
            head_width=0 if inner == width else inner // heads,
        ),
        vit3d=ViT3DSettings(patch=patch, tubelet=tubelet),
        vivit=ViViTSettings(temporal_depth=temporal, positions="joint", embed_norm=True),
    )


def _square(arrays: _Arrays, name: str, axes: int) -> int:
    height, width = arrays.shape(name, axes)[-2:]
    if height != width:
        raise ValueError(f"{arrays.prefix}{name}: patches of {height}x{width} px are not square")
    return width


def _side(arrays: _Arrays, name: str) -> int:
    """Patches a side of a square image, of a position table with a row for CLS."""
    rows = arrays.shape(name, 3)[1] - 1
    side = round(max(rows, 0) ** 0.5)
    if side * side != rows or not rows:
        raise ValueError(f"{arrays.prefix}{name}: {rows} patches are no square image")
    return side


def released_settings(
    state_dict: Mapping[str, np.ndarray],
    prefix: str = "",
    *,
    heads: int | None = None,
    rotary: bool | None = None,
    boxes: bool = False,
    encoder_passes: int = 1,
    hierarchical: bool = True,
    roi: bool = False,
    attend_padding: bool = True,
    impl: str = "fast",
) -> ModelSettings:
    """The settings under which our model is the released TrajViT, sizes read off its arrays.

    Args:
      state_dict: the released arrays.
      prefix: before the names, with its dot.
      heads: attention heads, of the encoder and the resamplers; None = as is usual at the width.
      rotary: rotary positions in the resamplers (`use_rotary`), else the learned table; None =
        by which of the two there is.
      boxes: boxes in the position branch (`use_bounding_box`), else centres.
      encoder_passes: the released forward runs its encoder twice.
      hierarchical: all stages of the ResNet (`resnet_pool='sum'`), or 'lastlayer'.
      roi: 2x2 points of each box instead of the mean under the mask (`roi_size=2`).
      attend_padding: as the released program does; see `TrajViTSettings`.
      impl: as in `ModelSettings`.

    Raises:
      ValueError: an array that sizes are read off is missing, or `heads` is needed.
    """
    arrays = _Arrays(state_dict, prefix)
    mapper, position = "appearance_token_mapper", "pos_encoder.motion_token_mapper"
    resampled = f"{prefix}{mapper}.weight" not in state_dict
    latents = arrays.shape(f"{mapper}.latents", 2)[0] if resampled else 1
    flat = f"{prefix}{position}.0.weight" in state_dict
    position_depth = arrays.count(rf"{re.escape(position)}\.layers\.(\d+)\.0\..*")
    reader = "mlp" if flat else "resampler" if position_depth else "sinusoids"
    if rotary is None:
        rotary = not arrays.has(rf"({mapper}|{re.escape(position)})\.media_pos_emb")
    resampler = ResamplerSettings(
        depth=arrays.count(rf"{mapper}\.layers\.(\d+)\.0\..*") or position_depth or 1,
        queries=latents,
        frame_positions="rotary" if rotary else "learned",
        latent_block=arrays.has(r".*\.1\.self_attn\."),
    )
    return ModelSettings(
        frames=_FRAMES,
        impl=impl,
        encoder=_encoder_settings(
            arrays,
            "vision_encoder.vit.encoder.layer",
            heads=heads,
            final_norm=f"{prefix}norm.weight" in state_dict,
            passes=encoder_passes,
        ),
        trajvit=TrajViTSettings(
            resnet=resnet_settings(state_dict, f"{prefix}appearance_tokenizer.resnet."),
            hierarchical=hierarchical,
            pooling="corners" if roi else "mean",
            appearance="resampler" if resampled else "mean",
            position="boxes" if boxes else "centers",
            position_features="released",
            position_reader=reader,
            resampler=resampler,
            position_depth=position_depth,
            queries_as="sum",
            attend_padding=attend_padding,
        ),
    )

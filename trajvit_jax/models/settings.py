"""Every size and switch of the models, with the paper's values as defaults."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """The transformer that reads the tokens. Defaults: ViT-Large (paper, Table 7).

    Attributes:
      init_std: as in BERT and ViT; narrow models learn sooner with more.
      unroll: how many layers the compiled scan holds at once; `depth` unrolls them all, which
        compiles longer and lets XLA count every layer's FLOPs.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp: int = 4096
    final_norm: bool = True
    layer_norm_eps: float = 1e-12
    init_std: float = 0.02
    remat: bool = False
    unroll: int = 1


SIZES = {
    "S": EncoderSettings(width=384, depth=12, heads=6, mlp=1536),
    "B": EncoderSettings(width=768, depth=12, heads=12, mlp=3072),
    "L": EncoderSettings(),
    "H": EncoderSettings(width=1280, depth=32, heads=16, mlp=5120),
}


@dataclasses.dataclass(frozen=True)
class ResNetSettings:
    """Basic-block ResNet. Defaults: ResNet-18."""

    stem: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)


@dataclasses.dataclass(frozen=True)
class TrajViTSettings:
    """The trajectory tokenizer (paper §3.2, Table 8).

    Attributes:
      max_trajectories: slots for trajectories; a video with more drops its smallest.
      feature_width: channels of the pooled feature map; 0 = the encoder's width.
      rotary: rotary positions over frames in the resampler.
    """

    max_trajectories: int = 255
    resnet: ResNetSettings = ResNetSettings()
    feature_width: int = 0
    resampler_depth: int = 1
    rotary: bool = True


@dataclasses.dataclass(frozen=True)
class ViT3DSettings:
    """Space-time patches: `tubelet` frames x `patch` x `patch` pixels."""

    patch: int = 16
    tubelet: int = 2


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """BERT. Defaults: base-uncased, 77 tokens; `layers_run` 0 = all of them."""

    vocabulary: int = 30_522
    length: int = 77
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 3072
    layers_run: int = 0
    init_std: float = 0.02
    unroll: int = 1


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A video-text model.

    Attributes:
      name: 'trajvit' or 'vit3d'.
      image_size: pixels a side; frames are square.
      projection: width of the shared embedding space.
    """

    name: str = "trajvit"
    image_size: int = 224
    frames: int = 16
    projection: int = 256
    encoder: EncoderSettings = EncoderSettings()
    trajvit: TrajViTSettings = TrajViTSettings()
    vit3d: ViT3DSettings = ViT3DSettings()
    text: TextSettings = TextSettings()

    @property
    def grid(self) -> int:
        """Cells a side of the label maps that the model reads: a quarter of the pixels."""
        return self.image_size // 4

"""Every size and switch of the models, with the paper's values as defaults."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from trajvit_jax.config import nearest, require_positive


def _check_heads(settings: EncoderSettings | TextSettings) -> None:
    if settings.width % settings.heads:
        raise ValueError(
            f"{type(settings).__name__}: {settings.heads} heads do not divide a width of "
            f"{settings.width}"
        )


def _require_natural(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(
                f"{type(settings).__name__}.{name} must be a whole number >= 0, got {value!r}"
            )


def check_choice(setting: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`, with the nearest."""
    if value not in choices:
        raise ValueError(
            f"{setting} must be one of {', '.join(choices)}, got {value!r}: "
            f"{nearest(value, choices)}"
        )


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """The transformer that reads the tokens. Defaults: ViT-Large (paper, Table 7).

    Attributes:
      final_norm: LayerNorm on the last states, as in a standard ViT; the released program has
        none.
      passes: how often the tokens go through all layers; the released program's 2 is its own.
      init_std: as in BERT and ViT; narrow models learn sooner with more.
      remat: what the backward pass computes again instead of keeping it: 'none', 'layers'
        (everything but what goes from layer to layer), or 'products' (everything but matrix
        products with weights: more memory, less work).
      unroll: how many layers the compiled scan holds at once; `depth` unrolls them all, which
        compiles longer and lets XLA count every layer's FLOPs.
      head_width: of each attention head; 0 = width / heads.
      gelu: 'exact' (as in HF's ViT and BERT), or 'tanh', its approximation (as in scenic).
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp: int = 4096
    final_norm: bool = True
    layer_norm_eps: float = 1e-12
    passes: int = 1
    init_std: float = 0.02
    remat: str = "none"
    unroll: int = 1
    head_width: int = 0
    gelu: str = "exact"

    def __post_init__(self) -> None:
        require_positive(self, "width", "depth", "heads", "mlp", "passes", "unroll")
        check_choice("encoder.remat", self.remat, ("none", "layers", "products"))
        check_choice("encoder.gelu", self.gelu, ("exact", "tanh"))
        _require_natural(self, "head_width")
        if not self.head_width:
            _check_heads(self)


SIZES = {
    "S": EncoderSettings(width=384, depth=12, heads=6, mlp=1536),
    "B": EncoderSettings(width=768, depth=12, heads=12, mlp=3072),
    "L": EncoderSettings(),
    "H": EncoderSettings(width=1280, depth=32, heads=16, mlp=5120),
}


@dataclasses.dataclass(frozen=True)
class ResNetSettings:
    """ResNet. Defaults: ResNet-18.

    Attributes:
      block: 'basic' (two 3x3 convolutions) or 'bottleneck' (1x1, 3x3, 1x1 at a quarter of the
        width; the stride is in the 3x3).
      remat: the backward pass computes each stage again instead of keeping what it held.
    """

    stem: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    block: str = "basic"
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice("resnet.block", self.block, ("basic", "bottleneck"))
        require_positive(self, "stem")
        for name in ("widths", "depths"):
            sizes = getattr(self, name)
            if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
                raise ValueError(f"resnet.{name} must be whole numbers >= 1, got {sizes}")
        if len(self.widths) != len(self.depths):
            raise ValueError(
                f"resnet.widths={self.widths} and resnet.depths={self.depths} must have an entry "
                "for each stage"
            )
        if self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise ValueError(
                f"resnet.widths={self.widths}: bottlenecks are a quarter as wide; choose multiples "
                "of 4"
            )


RESNETS = {
    "18": ResNetSettings(),
    "50": ResNetSettings(widths=(256, 512, 1024, 2048), depths=(3, 4, 6, 3), block="bottleneck"),
}


@dataclasses.dataclass(frozen=True)
class HieraSettings:
    """Hiera. Defaults: Hiera-S at 224 pixels.

    Attributes:
      image_size: pixels a side that the position table is for; others interpolate it.
      width: channels of the first stage; each later stage doubles them and halves the grid.
      unit_attention: for each stage, whether attention stays within mask units. The first block
        after a stage that does still stays within them.
    """

    image_size: int = 224
    width: int = 96
    depths: tuple[int, ...] = (1, 2, 11, 2)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    mlp_ratio: float = 4.0
    unit_attention: tuple[bool, ...] = (True, True, False, False)
    layer_norm_eps: float = 1e-6

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    @property
    def unit(self) -> int:
        """Cells a side of a mask unit in the first stage: one cell is left of it in the last."""
        return 2 ** (len(self.depths) - 1)


@dataclasses.dataclass(frozen=True)
class ResamplerSettings:
    """How a trajectory's vectors over frames become one (paper §3.2).

    Attributes:
      depth: cross-attention layers.
      queries: learned queries a trajectory (paper, Table 6: 1, 2 or 4).
      frame_positions: 'rotary', or 'learned': a table that is added to the frames.
      latent_block: self-attention and MLP among the queries after each layer.
      query_std: of the queries at the start; the released program has 1.
    """

    depth: int = 1
    queries: int = 1
    frame_positions: str = "rotary"
    latent_block: bool = False
    query_std: float = 0.02

    def __post_init__(self) -> None:
        check_choice("resampler.frame_positions", self.frame_positions, ("rotary", "learned"))
        require_positive(self, "depth", "queries")
        if not 0 < self.query_std < math.inf:
            raise ValueError(f"resampler.query_std must be above 0, got {self.query_std}")


# How many numbers say where a segment is, by `trajvit.position`.
COORDINATES = {"boxes": 4, "centers": 2, "boxes_and_frames": 5}


@dataclasses.dataclass(frozen=True)
class TrajViTSettings:
    """The trajectory tokenizer (paper §3.2, Tables 6 and 8).

    Attributes:
      max_trajectories: slots for trajectories; a video with more drops its smallest.
      backbone: what reads the frames: 'resnet' or 'hiera'.
      hierarchical: sum all stages of the backbone, or take the last alone.
      feature_width: channels of the pooled feature map; 0 = the encoder's width.
      pooling: 'mean' under the mask, or 'corners': masked features at 2x2 points of its box.
      appearance: 'resampler', or 'mean' over the frames and one linear map.
      position: 'boxes', 'centers', 'boxes_and_frames' (boxes, and which frame of the clip: for
        records whose tokens are of single frames) or 'none'.
      position_features: 'fourier', 64 of them and one linear map (Table 8), or 'released': the
        released program's sinusoids of the encoder's width, with its own coordinates.
      position_reader: 'resampler', or two readers of all frames' coordinates in a row: 'mlp',
        or 'sinusoids' without parameters.
      resampler: of appearance and position.
      position_depth: layers of the position's resampler; 0 = as the appearance's.
      queries_as: a trajectory's several queries as separate 'tokens' (paper), or their 'sum'
        (released).
      attend_padding: empty slots are read like tokens, as the released program does: results
        then depend on how many there are.
    """

    max_trajectories: int = 255
    backbone: str = "resnet"
    resnet: ResNetSettings = ResNetSettings()
    hiera: HieraSettings = HieraSettings()
    hierarchical: bool = True
    feature_width: int = 0
    pooling: str = "mean"
    appearance: str = "resampler"
    position: str = "boxes"
    position_features: str = "fourier"
    position_reader: str = "resampler"
    resampler: ResamplerSettings = ResamplerSettings()
    position_depth: int = 0
    queries_as: str = "tokens"
    attend_padding: bool = False

    def __post_init__(self) -> None:
        check_choice("trajvit.backbone", self.backbone, ("resnet", "hiera"))
        check_choice("trajvit.pooling", self.pooling, ("mean", "corners"))
        check_choice("trajvit.appearance", self.appearance, ("resampler", "mean"))
        check_choice("trajvit.position", self.position, (*COORDINATES, "none"))
        check_choice("trajvit.position_features", self.position_features, ("fourier", "released"))
        check_choice(
            "trajvit.position_reader", self.position_reader, ("resampler", "mlp", "sinusoids")
        )
        check_choice("trajvit.queries_as", self.queries_as, ("tokens", "sum"))
        require_positive(self, "max_trajectories")
        _require_natural(self, "feature_width", "position_depth")
        if (self.position, self.position_features) == ("boxes_and_frames", "released"):
            raise ValueError(
                "trajvit.position='boxes_and_frames' has no trajvit.position_features='released': "
                "set 'fourier'"
            )

    @property
    def tokens_each(self) -> int:
        """Tokens that a trajectory becomes."""
        resampled = self.appearance == "resampler" and self.queries_as == "tokens"
        return self.resampler.queries if resampled else 1


@dataclasses.dataclass(frozen=True)
class ViT3DSettings:
    """Space-time patches: `tubelet` frames x `patch` x `patch` pixels."""

    patch: int = 16
    tubelet: int = 2

    def __post_init__(self) -> None:
        require_positive(self, "patch", "tubelet")


@dataclasses.dataclass(frozen=True)
class ViViTSettings:
    """ViViT's factorised encoder (Arnab et al., model 2), of `vit3d`'s tubelets.

    Attributes:
      temporal_depth: how many of the encoder's layers read one state a time step, after the
        others have read each step's patches; 0 = half of them, so that the model has as many
        parameters as ViT3D. The original has 4 of 16 (B) and 24 of 48 (L).
      positions: 'factorized': a table for the patches of a step, and one for the steps; or
        'joint': one table for all tubelets (released program).
      embed_norm: LayerNorms before and after the map of pixels, as the released program has.
    """

    temporal_depth: int = 0
    positions: str = "factorized"
    embed_norm: bool = False

    def __post_init__(self) -> None:
        check_choice("vivit.positions", self.positions, ("factorized", "joint"))


@dataclasses.dataclass(frozen=True)
class TokenLearnerSettings:
    """TokenLearner (Ryoo et al.), version 1.1 of its authors' code, on `vit3d`'s tubelets.

    Attributes:
      tokens: learned from the patches of each time step; 8 is the default of its authors' module,
        and with 8 steps the 64 of the released TrajViT's setting.
      place: fraction of the layers that come before it; a half is that setting's, too. (Its paper's
        video models learn 8 or 16 tokens, after a half to three quarters of ViViT's layers.)
      bottleneck: hidden width of the MLP that weighs patches.
      fuse: every later layer reads tokens of its own and writes them back to all patches
        (TokenFuser), which then all leave the encoder; for dense features.
    """

    tokens: int = 8
    place: float = 0.5
    bottleneck: int = 64
    fuse: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "tokens", "bottleneck")
        if not 0 <= self.place <= 1:
            raise ValueError(f"token_learner.place must be within 0..1, got {self.place}")


@dataclasses.dataclass(frozen=True)
class ToMeSettings:
    """Token merging (Bolya et al.) between the layers of a ViT3D.

    Attributes:
      merged: tokens that a layer merges into others, at most half of those there are. 65 is the
        paper's number for video (16 frames, ViT-L).
      inflection: -1..1, how this changes over the layers: 1 = from 0 up to twice as many.
      weigh: attention counts a token as often as patches are in it.
    """

    merged: int = 65
    inflection: float = 0.0
    weigh: bool = True

    def __post_init__(self) -> None:
        _require_natural(self, "merged")
        if not -1 <= self.inflection <= 1:
            raise ValueError(f"tome.inflection must be within -1..1, got {self.inflection}")


@dataclasses.dataclass(frozen=True)
class RLTSettings:
    """Run-length tokenization (Choudhury et al.) of `vit3d`'s tubelets.

    Attributes:
      threshold: mean absolute difference of normalized pixels, as the model's dtype has them, above
        which a patch has changed; one that has not is no token.
      length_encoding: a learned vector for how many time steps a token stands for. The authors'
        configs have it off.
      group: videos that share a row of slots.
      slots: of a row, for the tokens and CLS of its videos; 0 = as many as they can have. What
        does not fit are the patches that changed least.
    """

    threshold: float = 0.1
    length_encoding: bool = False
    group: int = 1
    slots: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "group")
        _require_natural(self, "slots")
        if not self.threshold >= 0:  # a threshold that is no number is none
            raise ValueError(f"rlt.threshold must be at least 0, got {self.threshold}")


@dataclasses.dataclass(frozen=True)
class AutoMergeSettings:
    """TrajViT's modules without trajectories (paper, supplementary §7, "TokenMerge").

    Attributes:
      tokens: learned queries that read all patches of all frames.
      patch: side of these patches, in pixels.
      query_std: of the queries at the start, in place of `trajvit.resampler.query_std`. They all
        read the same patches: if they begin alike, so do all tokens.
    """

    tokens: int = 1024
    patch: int = 16
    query_std: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "tokens", "patch")


CLEANINGS = ("none", "released")  # of captions


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """BERT. Defaults: base-uncased, 77 tokens.

    Attributes:
      length: tokens of a caption.
      positions: rows of the position table.
      layers_run: layers that are there and run, of `depth`; 0 = all of them. The released
        program runs 9 of its 12.
      cleaning: of captions before they are cut into pieces: 'none', or 'released', which drops
        punctuation as the released program does (`trajvit_jax.data.captions`).
    """

    vocabulary: int = 30_522
    length: int = 77
    positions: int = 512
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 3072
    layers_run: int = 0
    init_std: float = 0.02
    unroll: int = 1
    cleaning: str = "none"

    def __post_init__(self) -> None:
        check_choice("text.cleaning", self.cleaning, CLEANINGS)
        require_positive(self, "vocabulary", "length", "width", "depth", "heads", "mlp", "unroll")
        _check_heads(self)
        if not 0 <= self.layers_run <= self.depth:
            raise ValueError(f"text.layers_run must be within 0..{self.depth}: {self.layers_run}")
        if self.length > self.positions:
            raise ValueError(
                f"text.length {self.length} exceeds the {self.positions} rows of the position "
                "table: shorten the captions or raise text.positions"
            )


# Tokenizations: trajectories; tubelets; patches of an image; tubelets read in two stages, learned
# from, merged or run-length encoded; and queries that merge patches freely.
NAMES = ("trajvit", "vit3d", "vit", "vivit", "token_learner", "tome", "rlt", "automerge")
# TrajViT by another name, for its records are others (paper, Table 5). Segments of single frames:
#   --config=configs/tokenization/paper.py:tracker=none,split=stride,limit=1
# Square patches that are followed, 16 px at the model's size:
#   --config=configs/tokenization/paper.py:segmenter=patches,tracker=patches,resolution=224
# with python -m tokenization.extract.
FED_TRAJVIT = {"segmentation_only": "trajvit", "tracking_only": "trajvit"}


def settings_of_fed(model: str) -> dict[str, str]:
    """What differs in `trajvit` for a model of `FED_TRAJVIT`; nothing for other models.

    A token of a single frame is told which frame it is of, for which the released program's
    SegPosEncoder has a coordinate, too; how it is coded is chosen here. One that spans frames has
    an order of its own.
    """
    return {"position": "boxes_and_frames"} if model == "segmentation_only" else {}


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A video-text model.

    Attributes:
      name: of the tokenization, see `NAMES`.
      image_size: pixels a side; frames are square.
      projection: width of the shared embedding space.
      dtype: 'float32' or 'bfloat16': what layers compute in. Parameters, normalization
        statistics, softmax, segment sums and the loss are float32 in both.
      impl: 'fast', or the plain formulas, 'reference', for mask pooling, resamplers and packed
        rows. They are equal up to rounding, which is more where projections nearly cancel (see
        `ops.layer_norm.mapped_factor`).
      deterministic: what is summed into segments, and the gradients of what is read by number,
        are added up in an order that is always the same. On a CPU it is so anyway; on a GPU,
        bit-identical runs need it, and XLA's `--xla_gpu_exclude_nondeterministic_ops` for its
        other operations (docs/SCALING.md, which also says what it costs).
    """

    name: str = "trajvit"
    image_size: int = 224
    frames: int = 16
    projection: int = 256
    dtype: str = "float32"
    impl: str = "fast"
    deterministic: bool = False
    encoder: EncoderSettings = EncoderSettings()
    trajvit: TrajViTSettings = TrajViTSettings()
    vit3d: ViT3DSettings = ViT3DSettings()
    vivit: ViViTSettings = ViViTSettings()
    token_learner: TokenLearnerSettings = TokenLearnerSettings()
    tome: ToMeSettings = ToMeSettings()
    rlt: RLTSettings = RLTSettings()
    automerge: AutoMergeSettings = AutoMergeSettings()
    text: TextSettings = TextSettings()

    def __post_init__(self) -> None:
        check_choice("model.dtype", self.dtype, ("float32", "bfloat16"))
        check_choice("model.impl", self.impl, ("fast", "reference"))
        if self.deterministic and (self.impl, self.trajvit.pooling) != ("fast", "mean"):
            raise ValueError(
                "impl='reference' and trajvit.pooling='corners' add gradients up in any order: "
                "with deterministic=True, set impl='fast' and trajvit.pooling='mean'"
            )
        require_positive(self, "image_size", "frames", "projection")

    @property
    def grid(self) -> int:
        """Cells a side of the label maps that the model reads: a quarter of the pixels."""
        return self.image_size // 4

"""Sizes of Llama-3, 3.1 and 3.2, and how they are read from and written to `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trajvit_jax.config import require_positive
from trajvit_jax.llm.lora import LoraSettings
from trajvit_jax.models.settings import check_choice


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How Llama-3.1 stretches rotary positions for contexts beyond those of its first training.

    Waves that turn less than `low_frequency` times within the old context are slowed down by
    `factor`, those that turn more than `high_frequency` times stay, and between the two the
    change is gradual.

    Attributes:
      factor: how many times slower; 8 in Llama-3.1, 32 in Llama-3.2.
      low_frequency: turns within `context`.
      high_frequency: turns within `context`.
      context: tokens of the first training.
    """

    factor: float = 8.0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    context: int = 8192


@dataclasses.dataclass(frozen=True)
class LlamaSettings:
    """A language model of the Llama-3 family. Defaults: Llama-3-8B.

    Attributes:
      vocabulary: rows of the embedding table.
      key_heads: heads of keys and values, each shared by heads / key_heads queries.
      head_width: of each head; 0 = width / heads.
      theta: base of the rotary frequencies.
      scaling: of the rotary positions, or None (Llama-3).
      context: most tokens of a sequence.
      tied: the head that tells tokens is the embedding table, as in Llama-3.2's small models.
      dtype: what layers compute in. Norms, softmax and logits are float32 in both.
      stored: dtype of the parameters; a model that is not trained may be kept in bfloat16.
      remat: as in `EncoderSettings`.
      unroll: as in `EncoderSettings`.
      attention: 'xla', which writes all scores to memory, or 'cudnn': in bfloat16 on a GPU alone,
        with heads whose width is a multiple of 8 up to 256 (128 before Hopper). Training
        with it wants JAX 0.11: 0.10 computes a gradient of the mask, too, as large as the scores.
      lora: adapters of the layers, or None.

    Raises:
      ValueError: a count under 1, heads that do not fit, an unknown choice, or what cuDNN's
        attention cannot do.
    """

    vocabulary: int = 128_256
    width: int = 4096
    depth: int = 32
    heads: int = 32
    key_heads: int = 8
    mlp: int = 14_336
    head_width: int = 0
    theta: float = 500_000.0
    scaling: RopeScaling | None = None
    context: int = 8192
    norm_eps: float = 1e-5
    tied: bool = False
    init_std: float = 0.02
    dtype: str = "bfloat16"
    stored: str = "float32"
    remat: str = "none"
    unroll: int = 1
    attention: str = "xla"
    lora: LoraSettings | None = None

    def __post_init__(self) -> None:
        require_positive(self, "vocabulary", "width", "depth", "heads", "key_heads", "mlp")
        require_positive(self, "context", "unroll")
        check_choice("llm.dtype", self.dtype, ("float32", "bfloat16"))
        check_choice("llm.stored", self.stored, ("float32", "bfloat16"))
        check_choice("llm.remat", self.remat, ("none", "layers", "products"))
        check_choice("llm.attention", self.attention, ("xla", "cudnn"))
        if self.heads % self.key_heads or (not self.head_width and self.width % self.heads):
            raise ValueError(
                f"llm: {self.heads} heads must be a multiple of {self.key_heads} key heads and "
                f"divide a width of {self.width}"
            )
        if self.each_head % 2:
            raise ValueError(f"llm: rotary positions need heads of even width: {self.each_head}")
        # JAX would tell while it traces, which a launcher takes for a failure to try again.
        fits = self.each_head % 8 == 0 and self.each_head <= 256
        if self.attention == "cudnn" and not (fits and self.dtype == "bfloat16"):
            raise ValueError(
                "llm.attention='cudnn' is for dtype='bfloat16' and heads whose width is a multiple "
                f"of 8 up to 256, not for {self.dtype!r} and {self.each_head}: set "
                "llm.attention='xla'"
            )

    @property
    def each_head(self) -> int:
        """Width of a head."""
        return self.head_width or self.width // self.heads

    @property
    def parameters(self) -> int:
        """Numbers in all arrays, adapters left out."""
        inner, own = self.heads * self.each_head, self.key_heads * self.each_head
        layer = 2 * self.width * (inner + own) + 3 * self.width * self.mlp + 2 * self.width
        tables = 1 if self.tied else 2
        return self.depth * layer + tables * self.vocabulary * self.width + self.width


_LONG = {"scaling": RopeScaling(), "context": 131_072}
_SMALL = {"scaling": RopeScaling(factor=32.0), "context": 131_072, "tied": True, "mlp": 8192}
LLAMAS: Mapping[str, LlamaSettings] = {
    "llama3_8b": LlamaSettings(),
    "llama3_70b": LlamaSettings(width=8192, depth=80, heads=64, mlp=28_672),
    "llama3.1_8b": LlamaSettings(**_LONG),
    "llama3.1_70b": LlamaSettings(width=8192, depth=80, heads=64, mlp=28_672, **_LONG),
    "llama3.2_1b": LlamaSettings(width=2048, depth=16, **_SMALL),
    "llama3.2_3b": LlamaSettings(width=3072, depth=28, heads=24, **_SMALL),
}
"""The published sizes, by name."""

# Our names of what config.json names otherwise.
_NAMES = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_heads": "num_key_value_heads",
    "mlp": "intermediate_size",
    "context": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "init_std": "initializer_range",
}
_SCALING = {
    "factor": "factor",
    "low_frequency": "low_freq_factor",
    "high_frequency": "high_freq_factor",
    "context": "original_max_position_embeddings",
}


def from_hugging_face(config: Mapping[str, Any], **changes: Any) -> LlamaSettings:
    """The settings that a `config.json` of transformers tells.

    Args:
      config: its content.
      changes: of our own settings: dtype, stored, remat, ..

    Raises:
      ValueError: another architecture, or something that Llama-3 has not (biases, another
        activation or scaling); the message names it.
    """
    if config.get("model_type") != "llama":
        raise ValueError(f"model_type is {config.get('model_type')!r}, not 'llama'")
    expected = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} is {config[name]!r}; Llama-3 has {value!r}")
    missing = [
        theirs for ours, theirs in _NAMES.items() if ours in _NEEDED and theirs not in config
    ]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    found = {ours: config[theirs] for ours, theirs in _NAMES.items() if theirs in config}
    found.setdefault("key_heads", found["heads"])
    # transformers 5 keeps both kinds of rotary settings in one place.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"its rotary settings are {rope!r}, no JSON object")
    theta = config.get("rope_theta", rope.get("rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    check_choice("rope_type", str(kind), ("default", "llama3"))
    if kind == "llama3":
        found["scaling"] = RopeScaling(**{ours: rope[name] for ours, name in _SCALING.items()})
    head = config.get("head_dim") or 0
    if head and head * found["heads"] != found["width"]:
        found["head_width"] = head
    return LlamaSettings(**(found | {"theta": float(theta)} | changes))


_NEEDED = ("vocabulary", "width", "depth", "heads", "mlp")


def to_hugging_face(settings: LlamaSettings) -> dict[str, Any]:
    """The content of a `config.json` that transformers reads."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": settings.each_head,
        "rope_theta": settings.theta,
        "torch_dtype": settings.stored,
    }
    config |= {theirs: getattr(settings, ours) for ours, theirs in _NAMES.items()}
    if settings.scaling is not None:
        scaling = dataclasses.asdict(settings.scaling)
        config["rope_scaling"] = {"rope_type": "llama3"} | {
            theirs: scaling[ours] for ours, theirs in _SCALING.items()
        }
    return config

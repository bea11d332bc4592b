"""Low-rank adapters (Hu et al., LoRA): small matrices learned beside large ones that stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from trajvit_jax.config import require_positive

PREFIX = "lora_"
"""What names of adapters' parameters begin with."""


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """Adapters of the language model's layers. Defaults: LLaVA's.

    Attributes:
      rank: width between the two matrices of an adapter.
      alpha: an adapter's output is multiplied by alpha / rank.
      targets: the linear maps of a layer that have one.

    Raises:
      ValueError: a rank under 1, or an unknown map.
    """

    rank: int = 128
    alpha: float = 256.0
    targets: tuple[str, ...] = (
        *("query", "key", "value", "attention_out"),
        *("gate", "mlp_in", "mlp_out"),
    )

    def __post_init__(self) -> None:
        require_positive(self, "rank")
        known = {field.name: field for field in dataclasses.fields(self)}["targets"].default
        wrong = [name for name in self.targets if name not in known]
        if wrong:
            raise ValueError(f"lora.targets: {wrong[0]!r} is none of {', '.join(known)}")


class AdaptedLinear(nnx.Linear):
    """A linear map with an adapter, which starts at zero: at first nothing is changed."""

    def __init__(self, width: int, out: int, *, lora: LoraSettings, rngs: nnx.Rngs, **options: Any):
        super().__init__(width, out, rngs=rngs, **options)
        self.factor = lora.alpha / lora.rank
        start = jax.random.normal(rngs.params(), (width, lora.rank)) * width**-0.5
        self.lora_in = nnx.Param(start)
        self.lora_out = nnx.Param(jnp.zeros((lora.rank, out)))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
        """The map of x, and the adapter's."""
        small = x @ self.lora_in[...].astype(x.dtype) @ self.lora_out[...].astype(x.dtype)
        return super().__call__(x) + self.factor * small


def start(path: Sequence[str], leaf: jax.ShapeDtypeStruct, *, seed: int = 0) -> np.ndarray:
    """What an adapter's parameter starts as, where the large matrices come from a file."""
    if path[-1] == f"{PREFIX}out":
        return np.zeros(leaf.shape, leaf.dtype)
    rng = np.random.default_rng([seed, *(ord(letter) for letter in ".".join(path))])
    values = rng.standard_normal(leaf.shape, np.float32) * leaf.shape[-2] ** -0.5
    return values.astype(leaf.dtype)

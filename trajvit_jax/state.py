"""What a training step changes."""

from __future__ import annotations

import dataclasses
from typing import Any, Self, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class TrainState:
    """Parameters, statistics and optimizer state after `step` updates.

    Attributes:
      graph: the model without its arrays.
      params: what is trained.
      stats: running statistics of the normalizations.
    """

    step: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: optax.OptState
    graph: Any = struct.field(pytree_node=False)

    @classmethod
    def create(cls, model: VideoTextModel, tx: optax.GradientTransformation) -> Self:
        """State before the first step."""
        graph, params, stats = nnx.split(model, nnx.Param, ...)
        return cls(jnp.zeros((), jnp.int32), params, stats, tx.init(params), graph)

    @classmethod
    def initialize(
        cls, settings: ModelSettings, tx: optax.GradientTransformation, seed: int
    ) -> Self:
        """State of a new model; the same seed gives the same numbers.

        Compiled without optimizations, which cost more time than random numbers take.
        """

        def make() -> VideoTextModel:
            return VideoTextModel(settings, rngs=nnx.Rngs(seed))

        def arrays() -> tuple[nnx.State, nnx.State, optax.OptState]:
            _, params, stats = nnx.split(make(), nnx.Param, ...)
            return params, stats, tx.init(params)

        graph, *_ = nnx.split(nnx.eval_shape(make), nnx.Param, ...)
        options = {"xla_backend_optimization_level": 0}
        params, stats, opt_state = jax.jit(arrays, compiler_options=options)()
        return cls(jnp.zeros((), jnp.int32), params, stats, opt_state, graph)

    def model(self) -> VideoTextModel:
        """The model with these arrays; changing it does not change the state."""
        return nnx.merge(self.graph, self.params, self.stats, copy=True)

    def arrays(self) -> dict[str, Any]:
        """Plain arrays by name, for checkpoints."""
        return {
            "step": self.step,
            "params": nnx.to_pure_dict(self.params),
            "stats": nnx.to_pure_dict(self.stats),
            "opt_state": jax.tree.leaves(self.opt_state),
        }

    def with_arrays(self, arrays: dict[str, Any]) -> Self:
        """This state with other values, as `arrays` gave them."""

        def like(tree: Any, values: Any) -> Any:
            return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(values))

        return dataclasses.replace(
            self,
            step=arrays["step"],
            params=like(self.params, arrays["params"]),
            stats=like(self.stats, arrays["stats"]),
            opt_state=like(self.opt_state, arrays["opt_state"]),
        )

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

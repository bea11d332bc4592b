"""What a training step changes."""

from __future__ import annotations

import dataclasses
from typing import Any, Self, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh, NamedSharding

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.sharding import shardings


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class TrainState:
    """Parameters, statistics and optimizer state after `step` updates.

    Attributes:
      graph: the model without its arrays.
      params: what is trained.
      stats: running statistics of the normalizations.
      average: exponential moving average of the parameters, or None.
    """

    step: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: optax.OptState
    average: nnx.State | None
    graph: Any = struct.field(pytree_node=False)

    @classmethod
    def create(cls, model: VideoTextModel, tx: optax.GradientTransformation) -> Self:
        """State before the first step."""
        graph, params, stats = nnx.split(model, nnx.Param, ...)
        return cls(jnp.zeros((), jnp.int32), params, stats, tx.init(params), None, graph)

    @classmethod
    def shapes(
        cls,
        settings: ModelSettings,
        tx: optax.GradientTransformation,
        *,
        mesh: Mesh,
        averaged: bool = False,
    ) -> Self:
        """What `initialize` makes, without arrays: their shapes, and where on the mesh they lie."""
        like = jax.eval_shape(lambda: cls._make(settings, tx, 0, averaged=averaged))

        def lies(shape: jax.ShapeDtypeStruct, where: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where)

        return jax.tree.map(lies, like, shardings(like, mesh))

    @classmethod
    def initializer(
        cls,
        settings: ModelSettings,
        tx: optax.GradientTransformation,
        seed: int,
        *,
        mesh: Mesh | None = None,
        averaged: bool = False,
    ) -> jax.stages.Wrapped:
        """The program that makes the state of a new model, without arguments.

        The same seed gives the same numbers on any mesh, but for their last bits where `tensor`
        divides. Every device makes its own part of the arrays: of what the mesh divides, no
        device and no host ever holds the whole.
        Compiled without optimizations, which cost more time than random numbers take.

        Args:
          settings: of the model.
          tx: the optimizer.
          seed: of the random numbers.
          mesh: where the arrays lie; None = on one device.
          averaged: whether an average of the parameters is kept.
        """
        where = None
        if mesh is not None:
            like = cls.shapes(settings, tx, mesh=mesh, averaged=averaged)
            where = jax.tree.map(lambda shape: shape.sharding, like)
        return jax.jit(
            lambda: cls._make(settings, tx, seed, averaged=averaged),
            out_shardings=where,
            compiler_options={"xla_backend_optimization_level": 0},
        )

    @classmethod
    def initialize(
        cls,
        settings: ModelSettings,
        tx: optax.GradientTransformation,
        seed: int,
        *,
        mesh: Mesh | None = None,
        averaged: bool = False,
    ) -> Self:
        """State of a new model; arguments as those of `initializer`."""
        return cls.initializer(settings, tx, seed, mesh=mesh, averaged=averaged)()

    @classmethod
    def _make(
        cls, settings: ModelSettings, tx: optax.GradientTransformation, seed: int, *, averaged: bool
    ) -> Self:
        state = cls.create(VideoTextModel(settings, rngs=nnx.Rngs(seed)), tx)
        # A copy: the step gives the memory of each away.
        return state.replace(average=jax.tree.map(jnp.copy, state.params)) if averaged else state

    def model(self) -> VideoTextModel:
        """The model with these arrays; changing it does not change the state."""
        return nnx.merge(self.graph, self.params, self.stats, copy=True)

    def best_model(self) -> VideoTextModel:
        """The model to evaluate: of the averaged parameters, where there are any."""
        return (self if self.average is None else self.replace(params=self.average)).model()

    def arrays(self) -> dict[str, Any]:
        """Plain arrays by name, for checkpoints."""
        return {
            "step": self.step,
            "params": nnx.to_pure_dict(self.params),
            "stats": nnx.to_pure_dict(self.stats),
            "opt_state": jax.tree.leaves(self.opt_state),
        } | ({} if self.average is None else {"average": nnx.to_pure_dict(self.average)})

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
            average=None if self.average is None else like(self.average, arrays["average"]),
        )

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

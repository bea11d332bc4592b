"""The stages of our encoders as contenders: fast, reference, and ViT3D beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Int32

from benchmarks.parts.timing import Contender
from trajvit_jax.models.flops import count_flops
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    TextSettings,
    TrajViTSettings,
)
from trajvit_jax.models.tokens import one_video_a_row
from trajvit_jax.models.transformer import Encoder
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mask_pooling import pool_stages
from trajvit_jax.ops.segments import Segments
from trajvit_jax.state import TrainState


def block_labels(
    frames: int, grid: int, trajectories: int, a_frame: int, seed: int = 0
) -> Int32[np.ndarray, "1 frames grid grid"]:
    """Label maps of about `a_frame` blocks a frame, of `trajectories` ids over the clip.

    Which ids a frame shows, and where, is drawn anew for every frame.
    """
    rng = np.random.default_rng(seed)
    side = max(1, round(a_frame**0.5))
    cells = np.minimum(np.arange(grid) * side // grid, side - 1)
    blocks = cells[:, None] * side + cells[None, :]
    labels = np.zeros((1, frames, grid, grid), np.int32)
    for frame in range(frames):
        ids = rng.choice(np.arange(1, trajectories + 1), side * side, replace=False)
        labels[0, frame] = ids[blocks]
    return labels


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video: normalized pixels, channels last, and its labels."""

    video: jax.Array
    labels: jax.Array

    @classmethod
    def random(cls, frames: int, side: int, trajectories: int, a_frame: int) -> Clip:
        """Noise, cut into blocks."""
        pixels = np.random.default_rng(1).normal(size=(1, frames, side, side, 3))
        labels = block_labels(frames, side // 4, trajectories, a_frame)
        return cls(jnp.asarray(pixels, jnp.float32), jnp.asarray(labels))


def settings_of(
    encoder: EncoderSettings,
    name: str,
    clip: Clip,
    trajectories: int,
    *,
    dtype: str,
    impl: str = "fast",
    position_features: str = TrajViTSettings.position_features,
) -> ModelSettings:
    """A paper model with this encoder."""
    _, frames, side, *_ = clip.video.shape
    return ModelSettings(
        name=name,
        frames=frames,
        image_size=side,
        dtype=dtype,
        impl=impl,
        encoder=encoder,
        text=TextSettings(vocabulary=8, width=8, depth=1, heads=1, mlp=8),  # it is not timed
        trajvit=TrajViTSettings(max_trajectories=trajectories, position_features=position_features),
    )


def contender(
    stage: str,
    name: str,
    function: Callable[..., Any],
    module: nnx.Module,
    *inputs: Any,
    counted: nnx.Module | None = None,
) -> Contender:
    """`function(module, *inputs)`, compiled, with what XLA says of it.

    Args:
      stage: what is done.
      name: how it is done.
      function: does it.
      module: its parameters.
      inputs: its arrays.
      counted: the module in the form of `counted_as`, where it has a stack of layers.
    """
    pure, state = _pure(function, module)
    compiled = jax.jit(pure).lower(state, *inputs).compile()
    flops = count_flops(*_pure(function, counted or module), *inputs)

    def run() -> Any:
        return jax.block_until_ready(compiled(state, *inputs))

    return _described(stage, name, run, compiled, flops)


def _described(
    stage: str,
    name: str,
    run: Callable[[], Any],
    compiled: jax.stages.Compiled,
    flops: float,
) -> Contender:
    """With what XLA says of a compiled program; its FLOPs are counted before it is optimized."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return Contender(
        stage,
        name,
        run,
        flops=flops,
        memory=memory.temp_size_in_bytes if memory else None,
        traffic=cost.get("bytes accessed"),
    )


def _pure(function: Callable[..., Any], module: nnx.Module) -> tuple[Callable[..., Any], nnx.State]:
    """The function of the module's parameters instead of the module, and these."""
    graph, state = nnx.split(module)

    def pure(state: nnx.State, *inputs: Any) -> Any:
        return function(nnx.merge(graph, state), *inputs)

    return pure, state


def build(settings: ModelSettings) -> VideoTextModel:
    """A model with random numbers in it."""
    return TrainState.initialize(settings, optax.identity(), seed=0).model()


def counted_as(model: VideoTextModel) -> VideoTextModel:
    """The model in the form in which XLA counts the FLOPs that its formula has.

    Of a loop over layers it counts the body once, and what a backward pass computes again twice.
    """
    apart = model.for_cpu()
    apart.encoder.settings = dataclasses.replace(apart.encoder.settings, remat="none")
    return apart


def forward(model: VideoTextModel, video: jax.Array, labels: jax.Array) -> jax.Array:
    """States of all slots."""
    return model.encode_video(video, labels)[0]


def forward_backward(
    model: VideoTextModel, video: jax.Array, labels: jax.Array
) -> tuple[nnx.State, nnx.State]:
    """Gradient of a scalar of the states in all parameters, and the statistics that moved."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: nnx.State) -> tuple[jax.Array, nnx.State]:
        model = nnx.merge(graph, params, rest, copy=True)
        states = model.encode_video(video, labels, train=True)[0].astype(jnp.float32)
        return jnp.square(states).mean(), nnx.state(model, nnx.Not(nnx.Param))

    return jax.grad(loss, has_aux=True)(params)


def stages(
    encoder: EncoderSettings, clip: Clip, trajectories: int, *, dtype: str
) -> list[Contender]:
    """Each stage of the forward pass, fast and reference."""
    found = []
    fast = settings_of(encoder, "trajvit", clip, trajectories, dtype=dtype)
    model = build(fast)
    pixels = clip.video.astype(fast.dtype)
    slots = trajectories + 1

    def resnet(appearance: Any, video: jax.Array) -> Any:
        return appearance.stages(video, train=False)

    apart = model.for_cpu()
    in_groups = apart.tokenizer.appearance
    found.append(contender("resnet", "at once", resnet, model.tokenizer.appearance, pixels))
    found.append(contender("resnet", "in groups", resnet, in_groups, pixels))
    shapes = jax.eval_shape(resnet, model.tokenizer.appearance, pixels)
    rng = np.random.default_rng(2)
    maps = [jnp.asarray(rng.normal(size=shape.shape), shape.dtype) for shape in shapes]
    for impl in ("fast", "reference"):

        def pool(appearance: Any, maps: Any, labels: jax.Array, impl: str = impl) -> jax.Array:
            segments = Segments.of(labels, slots)
            return pool_stages(maps, appearance.projection(), segments, impl=impl)

        found.append(
            contender("pooling", impl, pool, model.tokenizer.appearance, maps, clip.labels)
        )
    pooled = jnp.asarray(
        rng.normal(size=(1, slots, clip.video.shape[1], fast.encoder.width)), fast.dtype
    )
    for impl in ("fast", "reference"):

        def resample(model: Any, pooled: Any, labels: jax.Array, impl: str = impl) -> Any:
            segments = Segments.of(labels, slots)
            present = segments.areas() > 0
            seen = model.appearance.summary(pooled, present, impl=impl)
            where, lift = model.position.features(model.position.coordinates(segments))
            return seen + model.position.summary(where, present, lift=lift, impl=impl)

        found.append(contender("resamplers", impl, resample, model.tokenizer, pooled, clip.labels))
    tokens = one_video_a_row(pooled[:, :, 0], jnp.ones((1, slots), bool))
    run, layers = Encoder.__call__, apart.encoder
    found.append(contender("transformer", "stacked", run, model.encoder, tokens, counted=layers))
    found.append(contender("transformer", "separate", run, layers, tokens))
    return found


_FORWARDS: dict[str, tuple[str, dict[str, str]]] = {
    "fast": ("trajvit", {}),
    "as released": ("trajvit", {"position_features": "released"}),
    "reference": ("trajvit", {"impl": "reference"}),
    "ViT3D": ("vit3d", {}),
}
_KEPT_LAYERS = 12
LEARNING_RATE = 1e-4  # of the training steps; their time does not depend on it


def forwards(
    encoder: EncoderSettings,
    clip: Clip,
    trajectories: int,
    *,
    dtype: str,
) -> list[Contender]:
    """The whole forward pass, in the form in which evaluations run it.

    'as released' reads the released program's position features, for a comparison with it.
    """
    found = []
    for name, (model_name, changes) in _FORWARDS.items():
        settings = settings_of(encoder, model_name, clip, trajectories, dtype=dtype, **changes)
        model, pixels = build(settings), clip.video.astype(settings.dtype)
        apart = model.for_cpu()
        run = apart if jax.default_backend() == "cpu" else model
        found.append(contender("forward", name, forward, run, pixels, clip.labels, counted=apart))
    return found


def training(
    encoder: EncoderSettings, clip: Clip, trajectories: int, *, dtype: str
) -> Iterator[Contender]:
    """The encoder's training step: both passes and AdamW, without text and contrastive loss.

    Each is made when it is asked for, as it holds parameters and moments. Ours recompute the layers
    of deep encoders (`remat`): the 12 of ViT3D-B already keep 4.9 GB.
    """
    if encoder.depth > _KEPT_LAYERS:
        encoder = dataclasses.replace(encoder, remat="layers")
    for name, model_name, impl in (
        ("fast", "trajvit", "fast"),
        ("reference", "trajvit", "reference"),
        ("ViT3D", "vit3d", "fast"),
    ):
        settings = settings_of(encoder, model_name, clip, trajectories, dtype=dtype, impl=impl)
        yield _trained(name, settings, clip.video.astype(settings.dtype), clip.labels)


def _trained(name: str, settings: ModelSettings, *inputs: jax.Array) -> Contender:
    """Every run is the next step of the same model, in the memory of the one before."""
    tx = optax.adamw(LEARNING_RATE)

    def step(state: TrainState, *inputs: jax.Array) -> TrainState:
        gradient, stats = forward_backward(state.model(), *inputs)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, stats=stats, opt_state=opt_state)

    state = TrainState.initialize(settings, tx, seed=0)
    flops = count_flops(*_pure(forward_backward, counted_as(state.model())), *inputs)
    compiled = jax.jit(step, donate_argnums=0).lower(state, *inputs).compile()

    def run() -> TrainState:
        nonlocal state
        state = jax.block_until_ready(compiled(state, *inputs))
        return state

    return _described("train step", name, run, compiled, flops)

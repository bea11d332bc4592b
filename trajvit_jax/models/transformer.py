"""Transformer layers, stacked and scanned: the video encoder's and BERT's."""

from __future__ import annotations

from collections.abc import Callable
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, DTypeLike, Float

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.models.settings import EncoderSettings
from trajvit_jax.models.tokens import Tokens, same_video, unpack
from trajvit_jax.ops.impl import Impl, check_impl
from trajvit_jax.ops.mesh import keep_sharded


class Layer(nnx.Module):
    """Self-attention and MLP; `pre_norm` normalizes before each (ViT), else after (BERT)."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp: int,
        *,
        pre_norm: bool,
        eps: float,
        init_std: float,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.heads, self.pre_norm = heads, pre_norm
        shared = {"dtype": dtype, "rngs": rngs}
        linear = shared | {"kernel_init": nnx.initializers.truncated_normal(init_std)}
        self.norm_attention = LayerNorm(width, epsilon=eps, **shared)
        self.norm_mlp = LayerNorm(width, epsilon=eps, **shared)
        # The three apart, so that devices can divide each by heads.
        self.query_key_value = nnx.LinearGeneral(width, (3, width), **linear)
        self.attention_out = nnx.Linear(width, width, **linear)
        self.mlp_in = nnx.Linear(width, mlp, **linear)
        self.mlp_out = nnx.Linear(mlp, width, **linear)

    def _heads(self, x: jax.Array) -> list[jax.Array]:
        parts = self.query_key_value(x).reshape(*x.shape[:2], 3, self.heads, -1)
        return [parts[:, :, number] for number in range(3)]

    def _attend(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        out = jax.nn.dot_product_attention(*self._heads(x), mask=mask)
        return self.attention_out(out.reshape(x.shape))

    def _mlp(self, x: jax.Array) -> jax.Array:
        return self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=False))

    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b 1 #n n"]
    ) -> Float[Array, "b n d"]:
        """One layer; `mask` says which slots (last axis) each slot sees."""
        if self.pre_norm:
            x = x + self._attend(self.norm_attention(x), mask)
            return x + self._mlp(self.norm_mlp(x))
        x = self.norm_attention(x + self._attend(x, mask))
        return self.norm_mlp(x + self._mlp(x))

    def attention(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b 1 #n n"]
    ) -> Float[Array, "b heads n n"]:
        """How much each slot (second last axis) reads of each other, float32."""
        query, key, _ = self._heads(self.norm_attention(x) if self.pre_norm else x)
        scores = jnp.einsum("bqhe,bkhe->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = scores * query.shape[-1] ** -0.5
        return jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1)


def stack(depth: int, make: Callable[[nnx.Rngs], Layer], rngs: nnx.Rngs) -> Layer:
    """`depth` layers as one, every parameter with a leading layer axis."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=0, out_axes=0)
    def build(rngs: nnx.Rngs) -> Layer:
        return make(rngs)

    return build(rngs)


def unstack(layers: Layer | nnx.List) -> nnx.List:
    """Stacked layers as separate ones (which are returned as they are): for inference on CPU.

    A program that reads one layer of a stack copies it first, which few tokens do not repay.
    Training keeps the stack, which compiles once for all layers.
    """
    if isinstance(layers, nnx.List):
        return layers
    graph, state = nnx.split(layers)
    depth = jax.tree.leaves(state)[0].shape[0]

    def layer(number: int) -> Layer:
        return nnx.merge(graph, jax.tree.map(lambda x: x[number], state))

    return nnx.List([layer(number) for number in range(depth)])


def run_stack(
    layers: Layer | nnx.List,
    x: jax.Array,
    mask: jax.Array,
    *,
    remat: str = "none",
    unroll: int = 1,
) -> jax.Array:
    """Runs layers in order, stacked or separate ones."""

    def step(x: jax.Array, layer: Layer) -> jax.Array:
        return layer(x, mask)

    body = step
    if remat != "none":
        keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        body = nnx.remat(step, policy=keep if remat == "products" else None)
    if isinstance(layers, nnx.List):
        for layer in layers:
            x = body(x, layer)
        return x
    return nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry, unroll=unroll)(x, layers)


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Trace:
    """What went through stacked layers.

    Attributes:
      states: what each layer read, and at the end what the last one gave.
      attention: each layer's attention weights, float32.
    """

    states: Float[Array, "layers+1 b n d"]
    attention: Float[Array, "layers b heads n n"]


def trace_stack(layers: Layer | nnx.List, x: jax.Array, mask: jax.Array) -> Trace:
    """Runs layers and keeps everything: for looking, not for training."""
    states, attention = [x], []
    for layer in unstack(layers):
        attention.append(layer.attention(states[-1], mask))
        states.append(layer(states[-1], mask))
    return Trace(jnp.stack(states), jnp.stack(attention))


class Encoder(nnx.Module):
    """Pre-norm ViT without position embeddings: tokens carry their own (paper §3.2)."""

    def __init__(
        self, settings: EncoderSettings, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        self.settings, self.dtype = settings, dtype
        self.cls = nnx.Param(
            settings.init_std * jax.random.normal(rngs.params(), (settings.width,))
        )
        self.layers = stack(
            settings.depth,
            lambda rngs: Layer(
                settings.width,
                settings.heads,
                settings.mlp,
                pre_norm=True,
                eps=settings.layer_norm_eps,
                init_std=settings.init_std,
                dtype=dtype,
                rngs=rngs,
            ),
            rngs,
        )
        self.norm = (
            LayerNorm(settings.width, epsilon=settings.layer_norm_eps, dtype=dtype, rngs=rngs)
            if settings.final_norm
            else None
        )

    def __call__(self, tokens: Tokens) -> Float[Array, "r s d"]:
        """States of all slots; those of empty slots mean nothing and reach no other."""
        return self.run(self.read(tokens), same_video(tokens))

    def read(self, tokens: Tokens) -> Float[Array, "r s d"]:
        """What the first layer reads: the tokens, and the encoder's own vector at CLS slots."""
        is_cls = (tokens.query == 0) & (tokens.video > 0)
        x = jnp.where(is_cls[..., None], self.cls[...], tokens.values)
        return x.astype(self.dtype)

    def run(self, x: Float[Array, "r s d"], mask: Bool[Array, "r 1 #s s"]) -> Float[Array, "r s d"]:
        """All layers; `mask` says which slots (last axis) each slot sees."""
        x = keep_sharded(x)
        for _ in range(self.settings.passes):
            x = run_stack(
                self.layers, x, mask, remat=self.settings.remat, unroll=self.settings.unroll
            )
        return x if self.norm is None else self.norm(x)

    def trace(self, tokens: Tokens) -> Trace:
        """Every layer's states (before the final norm) and attention; see `Trace`."""
        x, mask, passes = self.read(tokens), same_video(tokens), []
        for _ in range(self.settings.passes):
            passes.append(trace_stack(self.layers, x, mask))
            x = passes[-1].states[-1]
        states = [one.states[:-1] for one in passes] + [x[None]]
        return Trace(jnp.concatenate(states), jnp.concatenate([one.attention for one in passes]))


def encode_rows(
    encoder: Encoder, tokens: Tokens, videos: int, *, impl: Impl = "fast"
) -> Float[Array, "r s d"]:
    """States of all slots of rows that may hold several videos.

    Args:
      encoder: the transformer.
      tokens: rows of slots.
      videos: how many videos the batch has.
      impl: 'fast' runs the rows as they are, attention masked by video; 'reference' gives each
        video a row of its own first. They are equal up to rounding.

    Raises:
      ValueError: an unknown `impl`.
    """
    check_impl(impl)
    if impl == "fast":
        return encoder(tokens)
    alone, slot = unpack(tokens, videos)
    states = encoder(alone)[jnp.maximum(tokens.video - 1, 0), slot]
    return jnp.where((tokens.video > 0)[..., None], states, 0)

"""Transformer layers, stacked and scanned: the video encoder's and BERT's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, no_type_check

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, DTypeLike, Float

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.models.linear import Linear, LinearGroups
from trajvit_jax.models.settings import EncoderSettings
from trajvit_jax.models.tokens import Tokens, same_video, unpack
from trajvit_jax.ops.impl import Impl, check_impl
from trajvit_jax.ops.mesh import keep_sharded

T = TypeVar("T")
M = TypeVar("M", bound=nnx.Module)


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
        head_width: int = 0,
        gelu: str = "exact",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.heads, self.pre_norm, self.gelu = heads, pre_norm, gelu
        inner = heads * head_width or width
        shared = {"dtype": dtype, "rngs": rngs}
        linear = shared | {"kernel_init": nnx.initializers.truncated_normal(init_std)}
        self.norm_attention = LayerNorm(width, epsilon=eps, **shared)
        self.norm_mlp = LayerNorm(width, epsilon=eps, **shared)
        # The three apart, so that devices can divide each by heads.
        self.query_key_value = LinearGroups(width, (3, inner), **linear)
        self.attention_out = Linear(inner, width, **linear)
        self.mlp_in = Linear(width, mlp, **linear)
        self.mlp_out = Linear(mlp, width, **linear)

    def _heads(self, x: jax.Array) -> list[jax.Array]:
        parts = self.query_key_value(x).reshape(*x.shape[:2], 3, self.heads, -1)
        return [parts[:, :, number] for number in range(3)]

    def _attend(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        out = jax.nn.dot_product_attention(*self._heads(x), mask=mask)
        return self.attention_out(out.reshape(*x.shape[:2], -1))

    def _mlp(self, x: jax.Array) -> jax.Array:
        return self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=self.gelu == "tanh"))

    def attend_with_keys(
        self, x: Float[Array, "b n d"], bias: Float[Array, "b 1 1 n"] | None
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n heads _"]]:
        """The first half of a pre-norm layer whose slots all see each other, and its keys.

        Args:
          x: states.
          bias: added to what each slot (last axis) scores with every other; None = nothing.
        """
        query, key, value = self._heads(self.norm_attention(x))
        out = jax.nn.dot_product_attention(query, key, value, bias=bias)
        return x + self.attention_out(out.reshape(*x.shape[:2], -1)), key

    def think(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """The second half of a pre-norm layer."""
        return x + self._mlp(self.norm_mlp(x))

    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b 1 #n n"]
    ) -> Float[Array, "b n d"]:
        """One layer; `mask` says which slots (last axis) each slot sees."""
        if self.pre_norm:
            return self.think(x + self._attend(self.norm_attention(x), mask))
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


def stack(depth: int, make: Callable[[nnx.Rngs], M], rngs: nnx.Rngs) -> M:
    """`depth` layers as one, every parameter with a leading layer axis."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=0, out_axes=0)
    def build(rngs: nnx.Rngs) -> M:
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
    leaves, tree = jax.tree.flatten(state)
    # By one operation, whose gradient is one, too: a slice's is as large as the whole stack.
    parts = [jax.lax.split(x, (1,) * len(x)) for x in leaves]

    def layer(number: int) -> Layer:
        return nnx.merge(graph, jax.tree.unflatten(tree, [part[number][0] for part in parts]))

    return nnx.List([layer(number) for number in range(len(leaves[0]))])


def cut(layers: Layer | nnx.List, at: int) -> tuple[Layer | nnx.List, Layer | nnx.List]:
    """The first `at` layers and the others, stacked or separate as they are.

    Raises:
      ValueError: no layer before or after the cut.
    """
    stacked = not isinstance(layers, nnx.List)
    depth = len(jax.tree.leaves(nnx.state(layers))[0]) if stacked else len(layers)
    if not 0 < at < depth:
        raise ValueError(f"{depth} layers cannot be cut after {at}")
    if not stacked:
        return nnx.List(layers[:at]), nnx.List(layers[at:])
    graph, state = nnx.split(layers)
    leaves, tree = jax.tree.flatten(state)
    parts = zip(*(jax.lax.split(x, (at, depth - at)) for x in leaves), strict=True)
    before, after = (nnx.merge(graph, jax.tree.unflatten(tree, part)) for part in parts)
    return before, after


def remat_of(
    function: Callable[..., T], remat: str, *, static: int | tuple[int, ...] = ()
) -> Callable[..., T]:
    """The function, computed again in the backward pass as `EncoderSettings.remat` says."""
    if remat == "none":
        return function
    keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    policy = keep if remat == "products" else None
    return nnx.remat(function, policy=policy, static_argnums=static)


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

    body = remat_of(step, remat)
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
                head_width=settings.head_width,
                gelu=settings.gelu,
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
        for _ in range(self.settings.passes):
            x = self.run_layers(self.layers, x, mask)
        return self.finish(x)

    def run_layers(
        self, layers: Layer | nnx.List, x: Float[Array, "r s d"], mask: Bool[Array, "r 1 #s s"]
    ) -> Float[Array, "r s d"]:
        """Some of the layers, for tokenizations that do something between them."""
        own = self.settings
        return run_stack(layers, keep_sharded(x), mask, remat=own.remat, unroll=own.unroll)

    def finish(self, x: Float[Array, "r s d"]) -> Float[Array, "r s d"]:
        """What comes after the last layer: the final norm, if there is one."""
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

"""Llama-3 (Grattafiori et al., 2024): a decoder that reads embeddings, with or without a cache."""

from __future__ import annotations

import dataclasses
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Float32, Int

from trajvit_jax.llm.lora import AdaptedLinear
from trajvit_jax.llm.rotary import frequencies, turn
from trajvit_jax.llm.settings import LlamaSettings
from trajvit_jax.models.transformer import remat_of, stack
from trajvit_jax.ops.mesh import keep_sharded


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Cache:
    """Keys and values of the tokens read so far, in slots of a fixed number.

    Attributes:
      keys: of every layer, turned by their positions.
      values: likewise.
      valid: slots that hold a token; padding holds none.
      used: slots written so far, the same number for all rows.
    """

    keys: Float[Array, "layers b slots key_heads e"]
    values: Float[Array, "layers b slots key_heads e"]
    valid: Bool[Array, "b slots"]
    used: Int[Array, ""]

    @classmethod
    def empty(cls, settings: LlamaSettings, rows: int, slots: int) -> Cache:
        """Without a token."""
        shape = (settings.depth, rows, slots, settings.key_heads, settings.each_head)
        keys, values = jnp.zeros((2, *shape), settings.dtype)
        return cls(keys, values, jnp.zeros((rows, slots), bool), jnp.zeros((), jnp.int32))


class LlamaLayer(nnx.Module):
    """Attention with grouped queries (Ainslie et al.) and a gated MLP (Shazeer), without biases."""

    def __init__(self, settings: LlamaSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        width, head = settings.width, settings.each_head
        shared = {"dtype": jnp.dtype(settings.dtype), "param_dtype": jnp.dtype(settings.stored)}
        linear = shared | {
            "use_bias": False,
            "kernel_init": nnx.initializers.normal(settings.init_std),
            "rngs": rngs,
        }
        norm = shared | {"epsilon": settings.norm_eps, "rngs": rngs}
        lora = settings.lora

        def make(name: str, width: int, out: int) -> nnx.Linear:
            if lora is not None and name in lora.targets:
                return AdaptedLinear(width, out, lora=lora, **linear)
            return nnx.Linear(width, out, **linear)

        self.norm_attention = nnx.RMSNorm(width, **norm)
        self.query = make("query", width, settings.heads * head)
        self.key = make("key", width, settings.key_heads * head)
        self.value = make("value", width, settings.key_heads * head)
        self.attention_out = make("attention_out", settings.heads * head, width)
        self.norm_mlp = nnx.RMSNorm(width, **norm)
        self.gate = make("gate", width, settings.mlp)
        self.mlp_in = make("mlp_in", width, settings.mlp)
        self.mlp_out = make("mlp_out", settings.mlp, width)

    def heads_of(
        self, x: Float[Array, "b l d"], positions: Int[Array, "b l"]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries and keys, turned by their positions, and values."""
        x, frequency = self.norm_attention(x), frequencies(self.settings)

        def heads(linear: nnx.Linear) -> jax.Array:
            return linear(x).reshape(*x.shape[:2], -1, self.settings.each_head)

        query, key = (turn(heads(one), positions, frequency) for one in (self.query, self.key))
        return query, key, heads(self.value)

    def read(
        self,
        x: Float[Array, "b l d"],
        query: Float[Array, "b l heads e"],
        key: Float[Array, "b s key_heads e"],
        value: Float[Array, "b s key_heads e"],
        mask: Bool[Array, "b 1 l s"],
    ) -> Float[Array, "b l d"]:
        """The states after this layer; `mask` says which keys (last axis) each query sees."""
        out = jax.nn.dot_product_attention(
            query, key, value, mask=mask, implementation=self.settings.attention
        )
        x = x + self.attention_out(out.reshape(*x.shape[:2], -1))
        y = self.norm_mlp(x)
        return x + self.mlp_out(jax.nn.silu(self.gate(y)) * self.mlp_in(y))

    def __call__(
        self, x: Float[Array, "b l d"], positions: Int[Array, "b l"], mask: Bool[Array, "b 1 l l"]
    ) -> Float[Array, "b l d"]:
        """One layer without a cache."""
        return self.read(x, *self.heads_of(x, positions), mask)


class Llama(nnx.Module):
    """Embeddings -> states -> logits of the next token."""

    def __init__(self, settings: LlamaSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        shared = {"dtype": jnp.dtype(settings.dtype), "param_dtype": jnp.dtype(settings.stored)}
        init = nnx.initializers.normal(settings.init_std)
        self.table = nnx.Embed(
            settings.vocabulary, settings.width, embedding_init=init, rngs=rngs, **shared
        )
        self.layers = stack(settings.depth, lambda rngs: LlamaLayer(settings, rngs=rngs), rngs)
        self.norm = nnx.RMSNorm(settings.width, epsilon=settings.norm_eps, rngs=rngs, **shared)
        self.head = (
            None
            if settings.tied
            else nnx.Linear(
                settings.width,
                settings.vocabulary,
                use_bias=False,
                kernel_init=init,
                rngs=rngs,
                **shared,
            )
        )

    def embed(self, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        """What the first layer reads of tokens. Ids must be within the vocabulary."""
        return self.table(ids)

    def __call__(
        self, x: Float[Array, "b l d"], segments: Int[Array, "b l"], positions: Int[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        """States of all tokens, after the last norm.

        Args:
          x: embeddings, of tokens or of anything else.
          segments: which sequence of its row a token is of, from 1; 0 = padding, which no token
            sees. Tokens see those of their own sequence up to themselves.
          positions: of tokens in their sequences, see `positions_in`.
        """
        mask = self._mask(segments)

        def step(x: jax.Array, layer: LlamaLayer) -> jax.Array:
            return layer(x, positions, mask)

        own = self.settings
        body = remat_of(step, own.remat)
        scan = nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry, unroll=own.unroll)
        return self.norm(scan(keep_sharded(x.astype(own.dtype)), self.layers))

    def trace(
        self, x: Float[Array, "b l d"], segments: Int[Array, "b l"], positions: Int[Array, "b l"]
    ) -> Float[Array, "levels b l d"]:
        """What each layer read, and at the end what the last norm gave: for looking."""
        mask = self._mask(segments)

        def step(x: jax.Array, layer: LlamaLayer) -> tuple[jax.Array, jax.Array]:
            return layer(x, positions, mask), x

        scan = nnx.scan(step, in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
        last, before = scan(x.astype(self.settings.dtype), self.layers)
        return jnp.concatenate([before, self.norm(last)[None]])

    def extend(
        self,
        x: Float[Array, "b l d"],
        valid: Bool[Array, "b l"],
        positions: Int[Array, "b l"],
        cache: Cache,
    ) -> tuple[Float[Array, "b l d"], Cache]:
        """States of the next tokens, which see those in the cache, and the cache with them.

        The cache must have `l` free slots: where it has not, JAX would overwrite its last ones.

        Args:
          x: embeddings of the next tokens.
          valid: False at padding, which no token sees.
          positions: of the tokens in their sequences.
          cache: of what was read before.
        """
        count, slots = x.shape[1], cache.valid.shape[1]
        seen = jax.lax.dynamic_update_slice(cache.valid, valid, (0, cache.used))
        # A token sees slots up to its own.
        own = cache.used + jnp.arange(count, dtype=jnp.int32)
        mask = seen[:, None, None] & (jnp.arange(slots) <= own[:, None])[None, None]

        def step(
            x: jax.Array, layer: LlamaLayer, keys: jax.Array, values: jax.Array
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            query, key, value = layer.heads_of(x, positions)
            at = (0, cache.used, 0, 0)
            keys = jax.lax.dynamic_update_slice(keys, key.astype(keys.dtype), at)
            values = jax.lax.dynamic_update_slice(values, value.astype(values.dtype), at)
            return layer.read(x, query, keys, values, mask), keys, values

        scan = nnx.scan(
            step,
            in_axes=(nnx.Carry, 0, 0, 0),
            out_axes=(nnx.Carry, 0, 0),
            unroll=self.settings.unroll,
        )
        x = x.astype(self.settings.dtype)
        x, keys, values = scan(x, self.layers, cache.keys, cache.values)
        return self.norm(x), Cache(keys, values, seen, cache.used + count)

    @property
    def head_kernel(self) -> Float[Array, "d vocabulary"]:
        """What turns a state into logits: the head's, or the embedding table's."""
        return self.table.embedding[...].T if self.head is None else self.head.kernel[...]

    def logits(self, states: Float[Array, "*b d"]) -> Float32[Array, "*b vocabulary"]:
        """Of the next token, float32."""
        return logits_by(self.head_kernel, states)

    @staticmethod
    def _mask(segments: jax.Array) -> jax.Array:
        query, key = segments[:, :, None], segments[:, None, :]
        causal = jnp.tri(segments.shape[1], dtype=bool)
        return ((query == key) & (key > 0) & causal)[:, None]


def logits_by(
    kernel: Float[Array, "d vocabulary"], states: Float[Array, "*b d"]
) -> Float32[Array, "*b vocabulary"]:
    """Logits of the next token, summed up in float32 whatever the states are in."""
    return jnp.matmul(states, kernel.astype(states.dtype), preferred_element_type=jnp.float32)


def positions_in(segments: Int[Array, "b l"], valid: Bool[Array, "b l"]) -> Int[Array, "b l"]:
    """Each token's place among the valid ones of its sequence, from 0; padding has none (0).

    Args:
      segments: which sequence of its row a token is of; a sequence's tokens follow one another.
      valid: tokens that count.
    """
    count = jnp.cumsum(valid.astype(jnp.int32), axis=1)
    before = jnp.roll(segments, 1, axis=1).at[:, 0].set(0)
    # Tokens that were counted before a sequence began.
    start = jnp.where(segments != before, count - valid, 0)
    return jnp.where(valid, count - 1 - jax.lax.cummax(start, axis=1), 0)


def without_adapters(model: Llama) -> Llama:
    """The same function without adapters: what they learned is added to the large matrices.

    The sum is rounded to the dtype in which these are stored.
    """
    if model.settings.lora is None:
        return model
    plain = dataclasses.replace(model.settings, lora=None)
    merged = nnx.eval_shape(lambda: Llama(plain, rngs=nnx.Rngs(0)))
    merged.table, merged.norm, merged.head = model.table, model.norm, model.head
    for name, own in vars(model.layers).items():
        if not isinstance(own, AdaptedLinear):
            if isinstance(own, nnx.Module):
                setattr(merged.layers, name, own)
            continue

        def add(part: tuple[jax.Array, ...], factor: float = own.factor) -> jax.Array:
            kernel, small_in, small_out = part
            change = factor * jnp.matmul(small_in, small_out)
            return (kernel.astype(jnp.float32) + change).astype(kernel.dtype)

        # Layer by layer: float32 copies of all layers at once would not fit.
        parts = own.kernel[...], own.lora_in[...], own.lora_out[...]
        getattr(merged.layers, name).kernel = nnx.Param(jax.lax.map(add, parts))
    return merged

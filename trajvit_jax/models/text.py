"""BERT (Devlin et al.): the text side."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.models.settings import TextSettings
from trajvit_jax.models.transformer import Layer, Trace, run_stack, stack, trace_stack
from trajvit_jax.ops.mesh import keep_sharded
from trajvit_jax.ops.ordered_sums import read_rows

_EPS = 1e-12


class TextEncoder(nnx.Module):
    """Token ids -> states; the state at slot 0 (CLS) stands for the caption."""

    def __init__(
        self,
        settings: TextSettings,
        *,
        dtype: DTypeLike = jnp.float32,
        ordered: bool = False,
        rngs: nnx.Rngs,
    ):
        """Args: settings; the computation's dtype; whether gradients of words that occur often
        are summed in an order that is always the same; random numbers."""
        self.settings, self.ordered = settings, ordered
        width = settings.width
        table = {
            "embedding_init": nnx.initializers.truncated_normal(settings.init_std),
            "dtype": dtype,
            "rngs": rngs,
        }
        self.word = nnx.Embed(settings.vocabulary, width, **table)
        self.position = nnx.Embed(settings.positions, width, **table)
        # Captions are all of type 0, one constant vector: from zero it holds up no training from
        # scratch. It is there, with BERT's second row, to load BERT whole.
        zeros = table | {"embedding_init": nnx.initializers.zeros_init()}
        self.token_type = nnx.Embed(2, width, **zeros)
        self.norm = LayerNorm(width, epsilon=_EPS, dtype=dtype, rngs=rngs)
        self.layers = stack(
            settings.layers_run or settings.depth,
            lambda rngs: Layer(
                width,
                settings.heads,
                settings.mlp,
                pre_norm=False,
                eps=_EPS,
                init_std=settings.init_std,
                dtype=dtype,
                rngs=rngs,
            ),
            rngs,
        )

    def embed(self, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        """What the first layer reads. Ids must be within the vocabulary.

        Float32 up to the LayerNorm: a word's gradient is a sum over all places where it occurs.
        """
        word = read_rows(self.word.embedding[...], ids, ordered=self.ordered)
        position, kind = self.position.embedding[: ids.shape[1]], self.token_type.embedding[:1]
        return self.norm(word + position + kind)

    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """States of all tokens; padding (`mask` False) is never attended to."""
        # Else XLA divides states by width, as it does the word table, and the batch not at all.
        states = keep_sharded(self.embed(ids))
        return run_stack(self.layers, states, mask[:, None, None], unroll=self.settings.unroll)

    def trace(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Trace:
        """Every layer's states and attention."""
        return trace_stack(self.layers, self.embed(ids), mask[:, None, None])

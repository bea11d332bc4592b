"""Tubelets that have changed: run-length tokenization (RLT: Choudhury et al.)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, Integer

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows, Tokens
from trajvit_jax.models.video_tokens.vit3d import TubeletTokens
from trajvit_jax.ops.ordered_sums import read_rows
from trajvit_jax.ops.run_length import changed, changes, run_lengths, run_starts


def rlt_slots(settings: ModelSettings, *, group: int) -> int:
    """Slots of a row that so many videos share.

    Raises:
      ValueError: fewer than the first time steps of all its videos take.
    """
    cells = (settings.image_size // settings.vit3d.patch) ** 2
    own, most = settings.rlt, 1 + settings.frames // settings.vit3d.tubelet * cells
    slots = -(-own.slots * group // own.group) if own.slots else group * most
    if slots < group * (1 + cells):
        raise ValueError(
            f"rlt.slots={own.slots} for rows of {own.group} videos: each has {1 + cells} tokens "
            f"at least, so set {own.group * (1 + cells)} or more, or 0"
        )
    return slots


def rlt_tokens(video: Float[Array, "b t h w 3"], settings: ModelSettings) -> Int32[Array, " b"]:
    """Tubelets of each video that change, which are its tokens beside CLS.

    Args:
      video: normalized pixels.
      settings: of the model.
    """
    change = changes(video, tubelet=settings.vit3d.tubelet, patch=settings.vit3d.patch)
    kept = changed(change, settings.rlt.threshold)
    return kept.reshape(len(video), -1).sum(-1, dtype=jnp.int32)


def rlt_dropped(video: Float[Array, "b t h w 3"], settings: ModelSettings) -> Int32[Array, ""]:
    """Tokens of a batch that find no slot in its rows; see `rlt_tokens`."""
    if not settings.rlt.slots:
        return jnp.zeros((), jnp.int32)
    group = math.gcd(len(video), settings.rlt.group)
    wanted = rlt_tokens(video, settings).reshape(-1, group).sum(-1)
    spare = rlt_slots(settings, group=group) - group  # slots beside those of CLS
    return jnp.maximum(wanted - spare, 0).sum().astype(jnp.int32)


class RunLengthTokens(TubeletTokens):
    """ViT3D without the tubelets that repeat the one before them.

    What is left has the positions that it has in ViT3D. Rows have a fixed number of slots, so
    that one compiled program reads any video; empty ones are not attended to. Several videos may
    share a row (`rlt.group`), which is what makes RLT cheaper than ViT3D.
    """

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        rlt_slots(settings, group=settings.rlt.group)
        self.settings = settings
        steps, width = settings.frames // self.tubelet, settings.encoder.width
        length = None
        if settings.rlt.length_encoding:
            table = jax.random.normal(rngs.params(), (steps, width))
            length = nnx.Param(settings.encoder.init_std * table)
        self.length = length

    def tokens(
        self,
        features: list[jax.Array],
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """Tokens in rows of their own making, and by name: `patches` and `changes` of all
        tubelets, `kept`, `labels`, and `dropped`, how many each row had no slot for."""
        whole, named = super().tokens(features, video, labels, rows)
        change = changes(video, tubelet=self.tubelet, patch=self.patch)
        b = len(change)
        group = math.gcd(b, self.settings.rlt.group)
        differs = changed(change, self.settings.rlt.threshold)
        slots = group * whole.values.shape[1]
        if self.settings.rlt.slots:
            slots = min(rlt_slots(self.settings, group=group), slots)
        kept, place = self._choose(change, differs, group, slots)

        values = whole.values
        if self.length is not None:
            table = self.length[...]
            longest = jnp.minimum(run_lengths(kept), len(table)) - 1
            ordered = self.settings.deterministic
            encoding = read_rows(table, longest.reshape(b, -1), ordered=ordered)
            values = values.at[:, 1:].add(encoding.astype(values.dtype), unique_indices=True)
        values = values.reshape(b // group, -1, values.shape[-1])
        row = jnp.arange(b // group)[:, None]
        # No two slots read one candidate: the gradient needs no sum.
        values = values.at[row, place].get(unique_indices=True)
        used = jnp.pad(kept.reshape(b, -1), ((0, 0), (1, 0)), constant_values=True)
        used = jnp.take_along_axis(used.reshape(b // group, -1), place, axis=1)
        candidates = whole.values.shape[1]
        number = place // candidates + group * row + 1
        tokens = Tokens(
            values,
            jnp.where(used, number, 0).astype(jnp.int32),
            (place % candidates > 0).astype(jnp.int32),
        )
        cells = self._slots_of(kept, place, used, group)
        dropped = (differs & ~kept).reshape(b // group, -1).sum(-1)
        return tokens, named | {
            "changes": change,
            "kept": kept,
            "labels": cells,
            "dropped": dropped,
        }

    def _choose(
        self,
        change: Float[Array, "b k y x"],
        differs: Bool[Array, "b k y x"],
        group: int,
        slots: int,
    ) -> tuple[Bool[Array, "b k y x"], Integer[Array, "r s"]]:
        """Which tubelets become tokens, and which candidate of its row each slot takes: for each
        video CLS and all tubelets, in order. Those that changed most, where slots are too few."""
        b = len(change)
        order = jnp.where(differs, change, -1).reshape(b, -1)
        order = jnp.pad(order, ((0, 0), (1, 0)), constant_values=jnp.inf)
        order = order.reshape(b // group, -1)
        if slots == order.shape[1]:
            return differs, jnp.broadcast_to(jnp.arange(slots), order.shape)
        _, place = jax.lax.top_k(order, slots)
        place = jnp.sort(place, axis=-1)
        row = jnp.arange(b // group)[:, None]
        chosen = jnp.zeros(order.shape, bool).at[row, place].set(True)
        return differs & chosen.reshape(b, -1)[:, 1:].reshape(differs.shape), place

    def _slots_of(
        self,
        kept: Bool[Array, "b k y x"],
        place: Integer[Array, "r s"],
        used: Bool[Array, "r s"],
        group: int,
    ) -> Integer[Array, "b k y x"]:
        """The slot that each tubelet feeds: that of the one that it repeats."""
        b, cells = len(kept), self.cells
        count = kept[0].size + 1
        row = jnp.arange(b // group)[:, None]
        slot = jnp.where(used, jnp.arange(place.shape[1]), 0)
        slot_of = jnp.zeros((b // group, group * count), jnp.int32).at[row, place].set(slot)
        cell = jnp.arange(cells).reshape(self.side, -1)
        candidate = (run_starts(kept) * cells + cell + 1).reshape(b, -1)
        slots = jnp.take_along_axis(slot_of.reshape(b, count), candidate, axis=1)
        return slots.reshape(kept.shape)

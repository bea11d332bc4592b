"""Samples from shared memory -> the arrays of a batch, each copied once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

TOLD = ("id", "bad")  # what a sample has besides arrays


class InPlace:
    """The batch whose samples come next: each is copied to its place, and its memory is free."""

    def __init__(self, size: int):
        """Args: samples of a batch."""
        self._size = size
        self._arrays: dict[str, Any] = {}
        self._filled = 0

    def put(self, sample: dict[str, Any]) -> int:
        """Copies the next sample; returns how many the batch then has.

        Raises:
          ValueError: an array of another shape or type than the batch has.
        """
        if not self._filled:
            self._arrays = {name: self._room(name, value) for name, value in sample.items()}
        for name, value in sample.items():
            room = self._arrays[name]
            if name not in TOLD and (room.shape[1:], room.dtype) != (value.shape, value.dtype):
                raise ValueError(
                    f"{name} of record {sample['id']!r} is {value.dtype}{list(value.shape)}, of "
                    f"others of its batch {room.dtype}{list(room.shape[1:])}"
                )
            room[self._filled] = value
        self._filled += 1
        return self._filled

    def _room(self, name: str, value: Any) -> Any:
        if name in TOLD:
            return [None] * self._size
        return np.empty((self._size, *value.shape), value.dtype)

    def take(self, filled: Sequence[int]) -> dict[str, Any]:
        """The batch, whose samples have all been put: one array of each, tuples of the rest.

        Args:
          filled: what `put` returned for each.

        Raises:
          ValueError: the samples of another batch.
        """
        if list(filled) != list(range(1, self._size + 1)):
            raise ValueError(f"a batch of {self._size} samples cannot be made of {list(filled)}")
        arrays, self._arrays, self._filled = self._arrays, {}, 0
        return arrays | {name: tuple(arrays[name]) for name in TOLD}

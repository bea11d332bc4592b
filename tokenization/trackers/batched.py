"""Tracking by a model with a memory of masks, as SAM 2 is: the objects of many clips at once.

Imports torch: reached through `backends` alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch.nn import functional

from tokenization.devices import Chunks, Device, faults, free
from tokenization.learned import DeviceSettings
from tokenization.protocols import Clip
from tokenization.trackers.clip_batches import Batch, Group, batches, masks_of


@runtime_checkable
class MaskModel(Protocol):
    """A model that follows masks; all its tensors are on one device.

    Attributes:
      side: of its images and masks, in pixels.
    """

    side: int

    def encode(self, images: Float[torch.Tensor, "k 3 s s"]) -> Sequence[torch.Tensor]:
        """Features of images: tensors whose first axis is `k`."""
        ...

    def follow(
        self,
        features: Sequence[torch.Tensor],
        frames: Int64[np.ndarray, "n t"],
        masks: Float[torch.Tensor, "n 1 s s"],
    ) -> Iterator[Float[torch.Tensor, "n 1 r r"]]:
        """Logits of each object's mask in every frame after the first, frame by frame.

        Args:
          features: of all frames, as from `encode`.
          frames: of each object, where the frames of its clip are among them.
          masks: of each object in the first of its frames; 0 or 1.
        """
        ...


class BatchedTracker:
    """Follows segments through clips; what comes into view later belongs to none.

    Every frame is encoded once, whatever the number of objects and clips that need it. Clips of
    one length run together, however many videos they are of, in chunks of objects. Scores
    become labels on the device, and only those leave it.

    Args:
      name: of the backend.
      model: on the device already.
      device: where it is, and in which precision it runs.
      settings: sizes of batches.
    """

    gives_birth = False

    def __init__(
        self, name: str, model: MaskModel, device: Device, settings: DeviceSettings
    ) -> None:
        self.name = name
        self._model = model
        self._device = device
        self._settings = settings
        self._frames_held = settings.frames_held
        self._plan_chunks()

    def _plan_chunks(self) -> None:
        self._images = Chunks(self._device.torch, self._settings.image_batch)
        self._objects = Chunks(self._device.torch, self._settings.objects)

    @faults()
    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """Labels of every frame of each clip; see `protocols.Tracker`.

        In the first frame they are the given ones. After it, a pixel belongs to the object of
        the highest logit, if that is above 0.
        """
        tracked = [np.zeros(clip.frames.shape[:3], np.int32) for clip in clips]
        for labels, clip in zip(tracked, clips, strict=True):
            labels[0] = clip.segments[0]
        with self._device.inference():
            for index, labels in self._in_batches(clips):
                tracked[index][1:] = labels
        return tracked

    def _in_batches(
        self, clips: Sequence[Clip]
    ) -> Iterator[tuple[int, Int32[np.ndarray, "_ _ _"]]]:
        """Labels of the frames after the first, of each clip that has any to follow.

        A batch whose features or labels do not fit is halved, and so are all later ones.
        """
        done, left = 0, clips
        ahead = batches(left, self._frames_held)
        while (batch := next(ahead, None)) is not None:
            found = self._together(left, batch)
            if found is not None:
                for index, labels in found:
                    yield done + index, labels
                continue
            # Only now, the error and what it held being gone, can the memory be given back.
            free(self._device.torch)
            self._frames_held = len(batch.frames) // 2  # at 0 each clip goes alone
            self._plan_chunks()  # they have shrunk for what was not their fault
            # A batch has clips that follow each other: all before it are tracked.
            done += min(index for group in batch.groups for index in group.clips)
            left = clips[done:]
            ahead = batches(left, self._frames_held)

    def _together(
        self, clips: Sequence[Clip], batch: Batch
    ) -> list[tuple[int, Int32[np.ndarray, "_ _ _"]]] | None:
        """Labels of the clips of a batch; None if several are too much for the memory."""
        try:
            features = self._encode(batch)
            return [
                found for group in batch.groups for found in self._follow(clips, group, features)
            ]
        except torch.OutOfMemoryError:
            if sum(len(group.clips) for group in batch.groups) == 1:
                raise
            return None

    def _encode(self, batch: Batch) -> list[torch.Tensor]:
        """Features of all frames of the batch, in chunks, each written where it stays."""
        whole: list[torch.Tensor] = []

        def work(part: slice) -> None:
            images = [
                self._device.images(np.stack(list(same)), self._model.side)
                for _, same in itertools.groupby(batch.frames[part], np.shape)
            ]
            levels = self._model.encode(torch.cat(images))
            if not whole:
                # All or none: a chunk that runs out of memory here is given again.
                whole[:] = [
                    level.new_empty(len(batch.frames), *level.shape[1:]) for level in levels
                ]
            for features, level in zip(whole, levels, strict=True):
                features[part] = level

        self._images.run(len(batch.frames), work)
        return whole

    def _follow(
        self, clips: Sequence[Clip], group: Group, features: Sequence[torch.Tensor]
    ) -> Iterator[tuple[int, Int32[np.ndarray, "t h w"]]]:
        """Labels of the frames after the first, of each clip of a group."""
        device = self._device.torch
        canvases = [_Canvas(clips[index].frames.shape[:3], device) for index in group.clips]
        labels = torch.from_numpy(group.labels).to(device)

        def work(objects: slice) -> None:
            members = group.members[objects]
            masks = [
                _squash(torch.from_numpy(masks).to(device), self._model.side)
                for masks in masks_of(clips, group, objects)
            ]
            logits = self._model.follow(features, group.frames[members], torch.cat(masks))
            for t, scores in enumerate(logits):
                for member in np.unique(members):
                    its = np.flatnonzero(members == member)
                    part = slice(int(its[0]), int(its[-1]) + 1)
                    canvases[member].draw(t, scores[part], labels[objects][part])

        # An object needs more the longer its memory is.
        self._objects.run(len(group.labels), work, load=group.frames.shape[1])
        for index, canvas in zip(group.clips, canvases, strict=True):
            yield index, canvas.labels.cpu().numpy()


class _Canvas:
    """The labels of a clip's frames after the first, while its objects are drawn in chunks."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        frames, height, width = shape
        self._scores = torch.zeros(frames - 1, height, width, device=device)
        self.labels = torch.zeros(frames - 1, height, width, dtype=torch.int32, device=device)

    def draw(
        self, t: int, logits: Float[torch.Tensor, "n 1 r r"], labels: Int32[torch.Tensor, " n"]
    ) -> None:
        """Gives the pixels to these objects where they score higher than any before them."""
        size = self._scores.shape[1:]
        scores = functional.interpolate(logits.float(), size, mode="bilinear")[:, 0]
        best, index = scores.max(0)
        higher = best > self._scores[t]
        self._scores[t] = torch.where(higher, best, self._scores[t])
        self.labels[t] = torch.where(higher, labels[index], self.labels[t])


def _squash(masks: torch.Tensor, side: int) -> Float[torch.Tensor, "n 1 {side} {side}"]:
    """Masks in the model's size, by SAM 2's rule: antialiased, and cut at one half."""
    masks = masks[:, None].float()
    if masks.shape[-2:] == (side, side):
        return masks
    squashed = functional.interpolate(
        masks, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return (squashed >= 0.5).float()

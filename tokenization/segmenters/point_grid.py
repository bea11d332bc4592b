"""Automatic masks by SAM 2.1: every point of a grid is a prompt (Kirillov et al. 2023, §5).

What the `sam2` package's automatic mask generator does with one layer and without crops, for the
paper's ablation of the segmenter; no compiled operators are needed. Imports torch: reached
through `backends` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from sam2.modeling.sam2_base import SAM2Base
from torch.nn import functional

from tokenization.devices import Chunks, Device, faults
from tokenization.learned import LearnedSettings, PointGridSettings
from tokenization.segmenters.masks import suppress
from tokenization.trackers.sam2 import build_model


class PointGrid:
    """Cuts frames into the masks that points of a grid prompt, smaller ones over larger ones.

    Masks stay on the device, of which there are three a point; their boxes, areas and qualities
    leave it, to find out which are kept, and the labels that these become.

    Args:
      model: in evaluation mode, on the device.
      settings: of the grid, and which masks are good.
      device: where the model is, and in which precision it runs.
      image_batch: frames that are encoded at once.
    """

    name = "sam2"

    def __init__(
        self, model: SAM2Base, settings: PointGridSettings, device: Device, image_batch: int
    ) -> None:
        self._model = model
        self._settings = settings
        self._device = device
        self._images = Chunks(device.torch, image_batch)
        self._points = Chunks(device.torch, settings.points)

    @faults()
    def segment(self, frames: UInt8[np.ndarray, "k h w 3"]) -> Int32[np.ndarray, "k h w"]:
        """Segments 1..m of each frame, the largest mask first; other pixels have none."""
        labels = np.empty(frames.shape[:3], np.int32)

        def work(part: slice) -> None:
            with self._device.inference():
                features = self._encode(frames[part])
                for index in range(part.start, part.stop):
                    levels = [level[index - part.start][None] for level in features]
                    labels[index] = self._segments(levels, frames.shape[1:3])

        self._images.run(len(frames), work)
        return labels

    def _encode(self, frames: UInt8[np.ndarray, "k h w 3"]) -> list[torch.Tensor]:
        """Feature maps of three levels, the finest first, as the mask decoder takes them."""
        images = self._device.images(frames, self._model.image_size)
        levels = list(self._model.forward_image(images)["backbone_fpn"])
        if self._model.directly_add_no_mem_embed:
            levels[-1] = levels[-1] + self._model.no_mem_embed.reshape(1, -1, 1, 1)
        return levels

    def _segments(
        self, levels: Sequence[torch.Tensor], size: tuple[int, int]
    ) -> Int32[np.ndarray, "h w"]:
        settings = self._settings
        points = grid(settings.side) * self._model.image_size
        masks: list[torch.Tensor] = []
        told: list[tuple[torch.Tensor, ...]] = []

        def work(part: slice) -> None:
            chosen = torch.from_numpy(points[part]).to(self._device.torch)
            good, quality = self._good(*self.decode(levels, chosen, size))
            # What needs memory comes first: a part that runs out of it is done again in halves.
            facts = (quality, boxes_of(good), good.sum((1, 2)))
            masks.extend(good)
            told.append(facts)

        self._points.run(len(points), work)
        quality, boxes, areas = (torch.cat(each).cpu().numpy() for each in zip(*told, strict=True))
        kept = suppress(boxes.astype(np.float64), quality, settings.max_overlap)
        largest = kept[np.argsort(-areas[kept], kind="stable")]
        largest = largest[areas[largest] > 0][: settings.max_segments]
        return paint([masks[index] for index in largest.tolist()], size, self._device.torch)

    def decode(
        self,
        levels: Sequence[torch.Tensor],
        points: Float[torch.Tensor, "n 2"],
        size: tuple[int, int],
    ) -> tuple[Float[torch.Tensor, "m h w"], Float[torch.Tensor, " m"]]:
        """Logits of three masks for each point, at a size of (h, w), and their predicted IoUs."""
        ones = torch.ones(len(points), 1, dtype=torch.int32, device=points.device)
        sparse, dense = self._model.sam_prompt_encoder(
            points=(points[:, None], ones), boxes=None, masks=None
        )
        logits, quality, _, _ = self._model.sam_mask_decoder(
            image_embeddings=levels[-1],
            image_pe=self._model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=list(levels[:-1]),
        )
        logits = functional.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        return logits.flatten(0, 1), quality.float().flatten()

    def _good(
        self, logits: Float[torch.Tensor, "m h w"], quality: Float[torch.Tensor, " m"]
    ) -> tuple[Bool[torch.Tensor, "g h w"], Float[torch.Tensor, " g"]]:
        """Masks that the model trusts, and whose edges are sharp."""
        settings = self._settings
        trusted = quality > settings.min_quality
        logits, quality = logits[trusted], quality[trusted]
        inner = (logits > settings.stability_offset).sum((1, 2))
        outer = (logits > -settings.stability_offset).sum((1, 2))
        stable = (inner > 0) & (inner >= settings.min_stability * outer)
        return logits[stable] > 0, quality[stable]


def grid(side: int) -> Float[np.ndarray, "n 2"]:
    """Points (x, y) in the middles of side x side cells of the unit square, row by row."""
    middles = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def boxes_of(masks: Bool[torch.Tensor, "n h w"]) -> Int64[torch.Tensor, "n 4"]:
    """The first and the last column and row of each mask; 0 for an empty one."""
    bounds = []
    for axis in (1, 2):
        inside = masks.any(axis)
        last = inside.shape[1] - 1 - inside.flip(1).int().argmax(1)
        bounds.append((inside.int().argmax(1), torch.where(inside.any(1), last, 0)))
    (left, right), (top, bottom) = bounds
    return torch.stack([left, top, right, bottom], -1)


def paint(
    masks: Sequence[Bool[torch.Tensor, "h w"]], size: tuple[int, int], device: torch.device
) -> Int32[np.ndarray, "h w"]:
    """Labels of masks on a device, later ones over earlier ones, 1.. in order.

    A mask of which nothing is seen has no label.
    """
    painted = torch.zeros(size, dtype=torch.int32, device=device)
    for number, mask in enumerate(masks, 1):
        painted.masked_fill_(mask, number)
    labels = painted.cpu().numpy()
    seen = np.unique(labels)
    return np.searchsorted(seen[seen > 0], labels).astype(np.int32) + (labels > 0)


def make(settings: LearnedSettings, paths: Sequence[Path] | None) -> PointGrid:
    """The segmenter `sam2`; without a path to a checkpoint, with random weights."""
    device = Device(settings.running)
    model = build_model(settings.sam2, device, paths[0] if paths else None)
    return PointGrid(model, settings.point_grid, device, settings.running.image_batch)

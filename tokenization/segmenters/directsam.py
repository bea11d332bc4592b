"""DirectSAM: one forward pass of a SegFormer finds the boundaries of all object parts.

Chen et al. 2024 (arXiv 2402.14327); the paper's segmenter of key frames (§3.1, suppl. §8).
Imports torch: reached through `backends` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Bool, Float32, Int32, Shaped, UInt8

from tokenization import torchvision_shim
from tokenization.devices import Chunks, Device, faults
from tokenization.learned import DirectSamSettings, LearnedSettings, SegFormerSize
from tokenization.resizing import resize_labels
from tokenization.segmenters.boundaries import grow, interiors
from tokenization.weights import WeightsError

torchvision_shim.make_importable()

from transformers import SegformerConfig, SegformerForSemanticSegmentation  # noqa: E402

# Of Xie et al. 2021, Table 6: layers of the four stages, their widths, width of the decoder.
_LAYERS = {
    "b0": (2, 2, 2, 2),
    "b1": (2, 2, 2, 2),
    "b2": (3, 4, 6, 3),
    "b3": (3, 4, 18, 3),
    "b4": (3, 8, 27, 3),
    "b5": (3, 6, 40, 3),
}


def architecture(size: SegFormerSize) -> SegformerConfig:
    """A SegFormer with one output: is this pixel on a boundary?"""
    return SegformerConfig(
        depths=list(_LAYERS[size]),
        hidden_sizes=[32, 64, 160, 256] if size == "b0" else [64, 128, 320, 512],
        decoder_hidden_size=256 if size in ("b0", "b1") else 768,
        num_labels=1,
    )


class DirectSam:
    """Cuts frames along the boundaries that a SegFormer finds.

    Which pixels are inside is decided on the device, and that alone leaves it. Their connected
    components are found by OpenCV on the CPU: PyTorch has no operator for them, and passing labels
    from pixel to pixel would take as many passes as the longest segment has pixels along its way.
    Components, growth and size take 5 ms a frame of 512 x 512 pixels with 128 segments on one core
    of a 2-core machine (the best of 20 runs).

    Args:
      model: with one output, in evaluation mode, on the device.
      settings: of the boundaries and of what becomes of them.
      device: where the model is, and in which precision it runs.
      image_batch: frames at once.
    """

    name = "directsam"

    def __init__(
        self,
        model: SegformerForSemanticSegmentation,
        settings: DirectSamSettings,
        device: Device,
        image_batch: int,
    ) -> None:
        self._model = model
        self._settings = settings
        self._device = device
        self._chunks = Chunks(device.torch, image_batch)

    @faults()
    def segment(self, frames: UInt8[np.ndarray, "k h w 3"]) -> Int32[np.ndarray, "k h w"]:
        """Segments 1..m of each frame, the largest first; pixels far from any have none."""
        settings = self._settings
        reach = settings.grow_kernel // 2 * settings.grow_rounds
        labels = np.empty(frames.shape[:3], np.int32)
        for index, inside in enumerate(self._inside(frames)):
            segments = interiors(
                inside,
                min_area=settings.min_area,
                max_segments=settings.max_segments,
            )
            small = resize_labels(grow(segments, reach), *frames.shape[1:3])
            # Shrinking may lose a small one.
            labels[index] = _dense(small)
        return labels

    def boundaries(self, frames: UInt8[np.ndarray, "k h w 3"]) -> Float32[np.ndarray, "k s s"]:
        """Probability of a boundary at every pixel of the frames, squashed to squares."""
        return self._maps(frames, lambda boundary: boundary, np.float32)

    def _inside(self, frames: UInt8[np.ndarray, "k h w 3"]) -> Bool[np.ndarray, "k s s"]:
        """Which pixels of the squares are on no boundary."""
        return self._maps(frames, lambda boundary: boundary < self._settings.threshold, np.bool_)

    def _maps(
        self,
        frames: UInt8[np.ndarray, "k h w 3"],
        function: Callable[[torch.Tensor], torch.Tensor],
        dtype: type[np.generic],
    ) -> Shaped[np.ndarray, "k s s"]:
        """A function of the boundary maps, which is applied on the device."""
        side = self._settings.resolution
        found = np.empty((len(frames), side, side), dtype)

        def work(part: slice) -> None:
            with self._device.inference():
                logits = self._model(self._device.images(frames[part], side)).logits.float()
                logits = torch.nn.functional.interpolate(
                    logits, (side, side), mode="bilinear", align_corners=False
                )
                found[part] = function(logits[:, 0].sigmoid()).cpu().numpy()

        self._chunks.run(len(frames), work)
        return found


def _dense(labels: np.ndarray) -> Int32[np.ndarray, "h w"]:
    ids, index = np.unique(labels, return_inverse=True)
    return (index.reshape(labels.shape) + (ids[0] > 0)).astype(np.int32)


def build_model(
    settings: DirectSamSettings, device: Device, path: Path | None
) -> SegformerForSemanticSegmentation:
    """A SegFormer in evaluation mode.

    Args:
      settings: its size.
      device: where it goes.
      path: safetensors as on the hub; None = random weights.

    Raises:
      WeightsError: weights of something else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SegformerForSemanticSegmentation(architecture(settings.size))
    if path is not None:
        try:
            model.load_state_dict(safetensors.torch.load_file(path))
        except (safetensors.SafetensorError, RuntimeError) as error:
            raise WeightsError(
                f"{path} are no weights of a SegFormer {settings.size} with one output "
                f"({str(error).partition(chr(10))[0]}); is it of another size?"
            ) from error
    device.compile(model)
    return model.eval().to(device.torch)


def make(settings: LearnedSettings, paths: Sequence[Path] | None) -> DirectSam:
    """The segmenter of this name; without a path to safetensors, with random weights."""
    device = Device(settings.running)
    model = build_model(settings.directsam, device, paths[0] if paths else None)
    return DirectSam(model, settings.directsam, device, settings.running.image_batch)

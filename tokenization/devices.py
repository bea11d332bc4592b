"""What the learned backends share on a device: frames as images, precision, and memory.

Imports torch: reached through `backends` alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8

from tokenization.engines.devices import visible_gpus
from tokenization.engines.protocol import WorkerUnfit
from tokenization.learned import DeviceSettings

# Of ImageNet, by which all these models were trained.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# What libraries say that have no exception of their own.
_OF_DEVICE = re.compile(r"CUDA error|cuDNN error|CUBLAS_STATUS|can't allocate memory")
_PROBE = 8  # objects whose memory is measured to plan the rest
_ON_CPU = 16  # objects at once where memory is not measured
_SHARE = 0.5  # of the free memory; the rest is for fragmentation and for other processes


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Tells failures of the device from those of the input.

    After an error of CUDA nothing works in the process any more, whatever it is given.

    Raises:
      WorkerUnfit: in place of such an error, and of memory that is too small for one item.
    """
    try:
        yield
    except RuntimeError as error:
        known = (torch.OutOfMemoryError, torch.AcceleratorError)
        if isinstance(error, known) or _OF_DEVICE.search(str(error)):
            reason = str(error).partition("\n")[0]
            raise WorkerUnfit(f"the device failed ({type(error).__name__}: {reason})") from error
        raise


def precision(settings: DeviceSettings) -> Literal["bfloat16", "float32"]:
    """What `auto` means on this machine; asked without occupying its device."""
    if settings.precision != "auto":
        return settings.precision
    return "float32" if _name(settings) == "cpu" else "bfloat16"


def _name(settings: DeviceSettings) -> str:
    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


class Device:
    """A device and its precision, resolved from the settings.

    Args:
      settings: what is asked for.

    Raises:
      ValueError: no such device.
      WorkerUnfit: there is a GPU, for `auto`, but it cannot be used.
    """

    def __init__(self, settings: DeviceSettings) -> None:
        name = _name(settings)
        lacking = settings.device == "auto" and name == "cpu" and torch.backends.cuda.is_built()
        if lacking and visible_gpus():
            raise WorkerUnfit(
                f"PyTorch cannot use the GPU ({', '.join(visible_gpus())}): check its driver, or "
                "set device='cpu' to do without"
            )
        try:
            self.torch = torch.device(name)
            torch.zeros(1, device=self.torch)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
            raise ValueError(f"there is no device {name!r} here ({error}); use 'auto'") from error
        self.bfloat16 = precision(settings) == "bfloat16"
        self._compiled = settings.compiled

    def compile(self, module: torch.nn.Module) -> None:
        """Compiles a module in place, if the settings ask for it; its weights keep their names."""
        if self._compiled:
            module.compile()

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients; matrix products in bfloat16, if that is the precision."""
        autocast = torch.autocast(self.torch.type, torch.bfloat16, enabled=self.bfloat16)
        with torch.inference_mode(), autocast:
            yield

    def images(
        self, frames: UInt8[np.ndarray, "k h w 3"], side: int
    ) -> Float[torch.Tensor, "k 3 {side} {side}"]:
        """Frames on the device, squashed to a square and normalized.

        Shrinking is antialiased, as PIL does it.
        """
        pixels = torch.from_numpy(np.array(frames, order="C")).to(self.torch)
        pixels = pixels.permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-2:] != (side, side):
            pixels = torch.nn.functional.interpolate(
                pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
            )
        mean = torch.tensor(_MEAN, device=self.torch)[:, None, None]
        std = torch.tensor(_STD, device=self.torch)[:, None, None]
        return (pixels - mean) / std


def free(device: torch.device) -> None:
    """Gives back what PyTorch keeps of a device's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Chunks:
    """Runs work on as many items at once as the device's memory holds.

    On a CUDA device the first few items are measured, and the others go in chunks of what then
    fits in a share of the free memory. Heavier items are measured anew. Fewer items than are
    measured tell nothing: most of what they take may be the same for any number. Running out of
    memory halves the chunk, for good.

    Args:
      device: whose memory.
      size: items at once; None = by measure.
    """

    def __init__(self, device: torch.device, size: int | None = None) -> None:
        self._device = device
        self._measured = device.type == "cuda"
        self._size = size or (None if self._measured else _ON_CPU)
        self._planned = self._size is None
        self._load = 0  # that the measurement is of
        self._most: int | None = None  # that has not run out of memory

    @property
    def size(self) -> int | None:
        """Items at once; None before the first measurement."""
        return self._size

    def run(self, count: int, work: Callable[[slice], None], *, load: int = 1) -> None:
        """Calls `work` with slices that cover 0..count-1 in order.

        A slice that runs out of memory is given again, smaller: what `work` did of it before
        must do no harm.

        Args:
          count: items.
          work: does those of a slice.
          load: of an item; one with more of it may need more memory.

        Raises:
          torch.OutOfMemoryError: a single item does not fit.
        """
        if self._planned and load > self._load:
            self._size = None
        start = 0
        while start < count:
            probing = self._size is None
            size = min(count - start, self._size or min(_PROBE, self._most or _PROBE))
            used = self._try(work, slice(start, start + size))
            if used is None:
                # Only now, the error and what it held being gone, can the memory be given back.
                self._size = self._most = size // 2
                self._load = max(self._load, load)
                free(self._device)
                continue
            start += size
            if probing and used and size == _PROBE:
                fitting = max(1, int(_SHARE * self._left() * size / used))
                self._size = min(fitting, self._most or fitting)
                self._load = load

    def _try(self, work: Callable[[slice], None], part: slice) -> int | None:
        """Does it: how many bytes it took (0 = not measured), or None if memory ran out."""
        if self._measured:
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
        try:
            work(part)
        except torch.OutOfMemoryError:
            if part.stop - part.start == 1:
                raise
            return None
        return torch.cuda.max_memory_allocated(self._device) - before if self._measured else 0

    def _left(self) -> int:
        free, _ = torch.cuda.mem_get_info(self._device)
        cached = torch.cuda.memory_reserved(self._device)
        return free + cached - torch.cuda.memory_allocated(self._device)

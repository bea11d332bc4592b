"""How fast training is: videos and tokens a second, use of slots and of the hardware."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from trajvit_jax.data.abstract import abstract_batch
from trajvit_jax.data.schedule import StreamSettings
from trajvit_jax.models.flops import NoFlopCount, count_embedding
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import plain_slots

_LOG = logging.getLogger(__name__)

# Dense bfloat16 FLOP/s of one device, from the makers' data sheets, by JAX's name of it.
PEAKS: Mapping[str, float] = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L40S": 362e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def peak_flops(devices: Sequence[Any] | None = None) -> float | None:
    """Dense bfloat16 FLOP/s of these devices together; None if one is not in `PEAKS`."""
    total = 0.0
    for device in jax.devices() if devices is None else devices:
        names = [name for name in PEAKS if device.device_kind.startswith(name)]
        if not names:
            return None
        total += PEAKS[max(names, key=len)]
    return total


@dataclasses.dataclass(frozen=True)
class Work:
    """What one step does, on all devices together.

    Attributes:
      videos: embedded.
      slots: that the encoder reads, empty ones included.
      flops: of the model, forward and backward; what is computed twice to save memory does not
        count. NaN where they could not be counted.
    """

    videos: int
    slots: int
    flops: float


def work_of(stream: StreamSettings, model: ModelSettings) -> Work:
    """What a step of a stream does.

    FLOPs are three times those of the embeddings: the gradient of a product is two products.
    """
    model = dataclasses.replace(model, frames=stream.frames)
    groups = stream.batch // stream.group
    one = abstract_batch(dataclasses.replace(stream, batch=stream.group), model)
    slots = stream.group * plain_slots(model) if one.rows is None else one.rows.video.size
    try:
        flops = count_embedding(model, (one.video, one.labels, one.rows), (one.text, one.text_mask))
    except NoFlopCount as error:
        _LOG.warning("utilization is not told: %s", error)
        flops = math.nan
    return Work(stream.batch, groups * slots, groups * 3 * flops)


class Meter:
    """Sums up steps, and tells of them once an interval.

    Args:
      peak: FLOP/s of the hardware, see `peak_flops`; None = utilization is not told.
    """

    def __init__(self, peak: float | None):
        self._peak = peak
        self._clear()

    def _clear(self) -> None:
        self._videos = self._slots = self._tokens = 0
        self._seconds = self._waited = self._flops = 0.0

    def add(self, work: Work, *, tokens: int, seconds: float, waited: float) -> None:
        """One step.

        Args:
          work: of the step.
          tokens: slots in use.
          seconds: from the end of the step before to its end.
          waited: of these, for data; the devices may have been busy with the step before.
        """
        self._videos += work.videos
        self._slots += work.slots
        self._flops += work.flops
        self._tokens += tokens
        self._seconds += seconds
        self._waited += waited

    def read(self) -> dict[str, float]:
        """Rates since the last call, by name: `mfu` is the model FLOPs utilization, 0..1."""
        seconds = max(self._seconds, 1e-9)
        rates = {
            "videos_a_second": self._videos / seconds,
            "tokens_a_second": self._tokens / seconds,
            "slot_use": self._tokens / max(self._slots, 1),
            "data_wait": self._waited / seconds,
        }
        if self._peak and not math.isnan(self._flops):
            rates["mfu"] = self._flops / seconds / self._peak
        self._clear()
        return rates


def in_words(rates: Mapping[str, float]) -> dict[str, str]:
    """The rates of `Meter.read`, short, for a progress line."""
    words = {
        "videos/s": f"{rates['videos_a_second']:.3g}",
        "tokens/s": f"{rates['tokens_a_second']:.3g}",
        "slots": f"{rates['slot_use']:.0%}",
        "wait": f"{rates['data_wait']:.0%}",
    }
    return words | ({"MFU": f"{rates['mfu']:.0%}"} if "mfu" in rates else {})

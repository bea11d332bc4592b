"""Video files -> what a model reads, in the way in which the records it learned from were made."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from jaxtyping import Int32, Int64

from tokenization import pipeline, video
from tokenization.manifest import Entry
from tokenization.pipeline import Pipeline
from tokenization.recorder import ExtractSettings
from tokenization.records import Record
from tokenization.resizing import fit, resize_labels
from tokenization.sampling import indices_between, sample_indices
from tokenization.trajectories import Trajectories, VideoInfo
from tokenization.video import Frames, VideoError
from trajvit_jax.data.samples import VideoSample, resized, video_sample
from trajvit_jax.models.settings import ModelSettings

# A file (video or image), an entry of a manifest (a file, and perhaps a span of it), or the pixels
# themselves, uint8[t, h, w, 3] or, of an image, uint8[h, w, 3].
Video = str | os.PathLike[str] | Entry | np.ndarray
ONE_VIDEO = (str, os.PathLike, Entry, np.ndarray)
# What these read is frame by frame: an image is a video of one frame for them.
_BY_FRAME = ("trajvit", "automerge", "vit")
_TOGETHER = 8  # videos that networks cut into trajectories at once


@dataclasses.dataclass(frozen=True, eq=False)
class ReadVideo:
    """One video, as it was decoded and as the model reads it.

    Attributes:
      frames: sampled, of the tokenizer's size.
      trajectories: of these; None for a model that reads patches.
      sample: pixels and label maps of the model's size. Labels are 1..n, in the order of
        `token_ids`; all 0 for a model that reads patches.
    """

    frames: Frames
    trajectories: Trajectories | None
    sample: VideoSample

    def token_ids(self, record_size: int) -> Int32[np.ndarray, " n"]:
        """Which of `trajectories` each of the model's tokens is.

        Those that no cell of the model's grid shows, and those without a slot, are none.
        """
        if self.trajectories is None:
            return np.zeros(0, np.int32)
        grid = self.sample.labels.shape[1:]
        small = resize_labels(self.trajectories.labels, record_size, record_size)
        cells = resize_labels(small, *grid)
        slots = self.sample.labels
        # Both maps show the same cells: any one of a slot tells its trajectory.
        used, first = np.unique(slots, return_index=True)
        return cells.reshape(-1)[first[used > 0]].astype(np.int32)


class Reader:
    """Decodes videos, cuts them into trajectories and brings them to the model's size.

    Args:
      model: what is read for.
      tokenization: how the model's records were made. Its number of frames is the model's.
      threads: videos that are read at once; None = one a processor, at most 4.
      weights: of a segmenter or tracker that is a network, see `tokenization.backends.make`.
    """

    def __init__(
        self,
        model: ModelSettings,
        tokenization: ExtractSettings,
        *,
        threads: int | None = None,
        weights: str | None = None,
    ):
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        chosen = dataclasses.replace(tokenization.pipeline, frames=model.frames)
        self.settings = dataclasses.replace(tokenization, pipeline=chosen)
        self._model, self._weights = model, weights
        self._threads = threads or min(4, os.cpu_count() or 1)

    @functools.cached_property
    def pipeline(self) -> Pipeline:
        """The tokenizer; made when the first video is cut."""
        return pipeline.build(self.settings.pipeline, self._weights)

    def decode(self, source: Video) -> Frames:
        """The model's number of frames of a video; one of an image.

        Raises:
          VideoError: a file that cannot be read, or an entry that says so.
          ValueError: pixels of another shape or dtype.
        """
        chosen = self.settings.pipeline
        if isinstance(source, np.ndarray):
            return _sample_pixels(source, chosen.frames, chosen.between, chosen.max_side)
        entry = source if isinstance(source, Entry) else None
        if entry is not None and entry.problem is not None:
            raise VideoError(entry.path, entry.problem, "correct the manifest, or rename the file")
        path = entry.path if entry else _path_of(source)
        return video.decode(
            path,
            frames=chosen.frames,
            between=chosen.between,
            start=entry.start if entry else None,
            end=entry.end if entry else None,
            video_id=entry.id if entry else None,
            max_side=chosen.max_side,
            threads=1,
        )

    def cut(self, frames: Sequence[Frames]) -> list[Trajectories | None]:
        """Trajectories of several videos; None each for a model that reads patches.

        Raises:
          ValueError: a video with more than 65,535 trajectories.
        """
        if self._model.name != "trajvit":
            return [None] * len(frames)
        return list(self.pipeline.tokenize_batch(frames))

    def sized(self, frames: Frames, trajectories: Trajectories | None) -> ReadVideo:
        """What the model reads, as if it came from a record."""
        plain = trajectories or _one_label(frames)
        record = Record.squash(plain, frames.rgb, size=self.settings.record_size).as_stored()
        settings = dataclasses.replace(self._model, frames=len(frames.rgb))
        if trajectories is not None:
            return ReadVideo(frames, trajectories, video_sample(record, settings))
        pixels, _ = resized(record, settings)
        if len(pixels) < self._model.frames and self._model.name not in _BY_FRAME:
            pixels = np.repeat(pixels, self._model.frames, axis=0)  # an image stands still
        labels = np.zeros((len(pixels), settings.grid, settings.grid), np.int32)
        return ReadVideo(frames, None, VideoSample(pixels, labels, 0))

    def read(self, source: Video) -> ReadVideo:
        """Decodes one video, cuts it and brings it to the model's size; see `decode`, `cut`."""
        frames = self.decode(source)
        return self.sized(frames, self.cut([frames])[0])

    def read_many(self, sources: Iterable[Video]) -> Iterator[ReadVideo | Exception]:
        """Reads videos ahead of who asks for them, in order; a bad one comes as its error."""
        with ThreadPoolExecutor(self._threads, "read") as threads:
            try:
                if pipeline.learned_parts(self.settings.pipeline) and self._model.name == "trajvit":
                    yield from self._read_together(threads, sources)
                else:
                    ahead = 2 * self._threads
                    yield from _in_order(threads, self.read, sources, ahead)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _read_together(
        self, threads: ThreadPoolExecutor, sources: Iterable[Video]
    ) -> Iterator[ReadVideo | Exception]:
        """Several videos go through the networks at once."""
        decoded = _in_order(threads, self.decode, sources, 2 * _TOGETHER)
        while some := list(itertools.islice(decoded, _TOGETHER)):
            good = [one for one in some if isinstance(one, Frames)]
            cut = iter(self.cut(good) if good else [])
            for one in some:
                yield one if isinstance(one, Exception) else self.sized(one, next(cut))


def _in_order(
    threads: ThreadPoolExecutor, work: Any, sources: Iterable[Video], ahead: int
) -> Iterator[Any]:
    """The result of each, or its exception; `ahead` of them are worked on before they are asked."""
    running: collections.deque[Future] = collections.deque()
    left = iter(sources)
    while True:
        running.extend(threads.submit(work, one) for one in itertools.islice(left, ahead))
        ahead = 1
        if not running:
            return
        done = running.popleft()
        error = done.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        yield error or done.result()


def _path_of(source: Any) -> str | os.PathLike[str]:
    if isinstance(source, str | os.PathLike):
        return source
    raise ValueError(
        f"a video must be a path, an entry of a manifest or uint8 pixels [t, h, w, 3], got "
        f"{type(source).__name__}"
    )


def _sample_pixels(pixels: np.ndarray, frames: int, between: int, max_side: int) -> Frames:
    """What `video.decode` gives of a file, of pixels in memory; a frame is taken to be a second."""
    fps, shape = 1.0, pixels.shape
    if pixels.ndim == 3:
        pixels, frames, fps = pixels[None], 1, 0.0
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(
            f"pixels must be RGB, uint8[t, h, w, 3] or uint8[h, w, 3], got "
            f"{pixels.dtype}{list(shape)}"
        )
    height, width = pixels.shape[1:3]
    small = fit(width, height, max_side)

    def shrunk(at: Int64[np.ndarray, " k"]) -> np.ndarray:
        chosen = pixels[at]
        if small == (width, height):
            return chosen
        some = [cv2.resize(frame, small, interpolation=cv2.INTER_AREA) for frame in chosen]
        return np.array(some, np.uint8).reshape(-1, small[1], small[0], 3)

    indices = sample_indices(len(pixels), frames)
    gaps = indices_between(indices, between) if between else []
    return Frames(
        rgb=shrunk(indices),
        times=indices.astype(np.float32),
        indices=indices,
        video=VideoInfo("pixels", width, height, fps, fps * len(pixels)),
        repeated=int((np.diff(indices) == 0).sum()),
        between=tuple(map(shrunk, gaps)),
    )


def _one_label(frames: Frames) -> Trajectories:
    """A label map that means nothing, for models that read none."""
    return Trajectories(
        np.ones(frames.rgb.shape[:3], np.uint16),
        frames.times,
        np.arange(len(frames.rgb)) == 0,
        frames.video,
    )

"""Video file -> sampled RGB frames.

One decode a video: a demux pass (no decoding) lists the presentation times, the frames to
sample follow from them, and the decode converts only these to RGB. Where the container's
packets turn out not to be its frames (packed B-frames, damage), the decode is done again with
the times that it found. Damage that FFmpeg finds stops nothing and is counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from jaxtyping import Float32, Int64, UInt8

from tokenization import file_head
from tokenization.orientation import Orientation
from tokenization.resizing import fit
from tokenization.sampling import indices_between, sample_indices, with_annotated
from tokenization.trajectories import VideoInfo

_SAME = 1e-3  # seconds: times of frames are rounded
_LEAD = 1.0  # seconds that a seek goes before the start: containers index decoding times


class VideoError(ValueError):
    """A video that cannot be read.

    Attributes:
      path: the file.
      reason: what is wrong with it.
      remedy: what its owner can do.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, remedy: str) -> None:
        super().__init__(os.fspath(path), reason, remedy)
        self.path, self.reason, self.remedy = self.args

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.remedy}"


class StorageError(VideoError):
    """A video whose storage fails, which may pass: a mount that is away, too many open files."""


# Errors that tell of the name; all others tell of the storage.
_BAD_NAME = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO}


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames sampled from one video.

    Attributes:
      rgb: pixels, rotated as displayed.
      times: seconds from the start of the video (presentation times of the container).
      indices: which decoded frame of the video (or of its start..end span) each one is.
      video: the source.
      repeated: how many trailing frames repeat the last one, because the video is shorter.
      between: frames between each sampled one and the next, in order, of the same size; empty
        if none were asked for.
      damaged: frames of the video (or of its span) that FFmpeg could not decode, and are not
        there, or decoded in part, whether sampled or not. Damage that it does not see is none.
    """

    rgb: UInt8[np.ndarray, "t h w 3"]
    times: Float32[np.ndarray, " t"]
    indices: Int64[np.ndarray, " t"]
    video: VideoInfo
    repeated: int = 0
    between: tuple[UInt8[np.ndarray, "_ h w 3"], ...] = ()
    damaged: int = 0


def decode(
    path: str | os.PathLike[str],
    *,
    frames: int = 16,
    between: int = 0,
    start: float | None = None,
    end: float | None = None,
    annotated: Collection[float] = (),
    video_id: str | None = None,
    max_side: int | None = None,
    threads: int | None = None,
) -> Frames:
    """Decodes a video once and samples its frames uniformly.

    Rotation and mirroring in the metadata are applied. An image file is a video of one frame
    and gives one frame, whatever `frames` says. What cannot be decoded is passed over, and counted
    in `Frames.damaged`.

    Args:
      path: video or image file.
      frames: frames to sample (`sample_indices`).
      between: most frames to give between two sampled ones (`indices_between`).
      start: seconds; sampling begins with the frame on screen then. None = the first.
      end: seconds; sampling ends before the frame on screen then. None = after the last.
      annotated: seconds whose frames on screen are to be among the sampled ones, in place of
        those nearest to them (`with_annotated`); those outside the span, or after the video's end,
        are none.
      video_id: name in `VideoInfo`; the file's stem by default.
      max_side: the longer side of the result at most, in pixels; frames are scaled while they
        are converted, so no full-size RGB image is made. None = as they are.
      threads: decoding threads; None = FFmpeg's choice.

    Raises:
      VideoError: the file cannot be read; the message names it, the reason and the remedy. A
        StorageError, if another try may go well.
      OSError: its storage fails in the middle.
      ValueError: `frames` or `max_side` under one, or `between` under 0.
    """
    path = Path(path)
    if between < 0:
        raise ValueError(f"between={between} must be at least 0")
    if frames < 1 or (max_side is not None and max_side < 1):
        raise ValueError(f"frames={frames} and max_side={max_side} must be at least 1")
    if not all(math.isfinite(bound) for bound in (start, end) if bound is not None):
        raise VideoError(
            path, f"the span {start}..{end} s is not finite", "give seconds, or leave them out"
        )
    if end is not None and end <= 0:
        raise VideoError(
            path,
            f"its end {end} s is not after the first frame",
            "correct the end, or leave it out",
        )
    if start is not None and end is not None and end <= start:
        raise VideoError(path, f"the span {start}..{end} s is empty", "give an end after the start")

    span = _Span(path, start, end, tuple(annotated))
    listed: list[float] = []
    for seek in dict.fromkeys((span.seek, None)):
        with _opened(path) as source:
            source.check_complete()
            listed = source.list_times(seek=seek, end=end)
            count = 1 if source.is_image else frames
            frame_seconds = source.frame_seconds
        if start is not None and listed and listed[0] <= start:
            break
    wanted = set(span.sample(listed, count, frame_seconds)) if listed else {0}
    wanted |= _gaps(wanted, between)
    while True:
        with _opened(path) as source:
            if threads is not None:
                source.stream.codec_context.thread_count = threads
            found = source.decode(wanted, seek=seek, end=end, max_side=max_side)
            if not found.times:
                raise VideoError(
                    path,
                    f"no frame could be decoded (codec {source.stream.codec_context.name})",
                    "the file is truncated or damaged: copy or encode it again",
                )
            positions = span.sample(found.times, count, frame_seconds)
            needed = set(positions) | _gaps(positions, between)
            if found.images.keys() >= needed:
                video = source.video_info(video_id or path.stem, found)
                break
            if wanted == needed:
                raise VideoError(path, "does not decode twice alike", "encode it again")
            wanted = needed

    first, _ = span.bounds(found.times, frame_seconds)
    distinct = len(set(positions))
    rgb = np.stack([found.images[i] for i in positions])
    return Frames(
        rgb=rgb,
        times=np.array([found.times[i] for i in positions], np.float32),
        indices=np.array(positions, np.int64) - first,
        video=video,
        repeated=len(positions) - distinct,
        between=tuple(
            # Taken out: each is in memory once.
            np.array([found.images.pop(i) for i in gap.tolist()], np.uint8).reshape(
                -1, *rgb.shape[1:]
            )
            for gap in (indices_between(np.array(positions), between) if between else [])
        ),
        damaged=_damaged(found, [time for time in listed if span.holds(time)], span),
    )


def _damaged(found: _Found, packets: Collection[float], span: _Span) -> int:
    """Damaged frames in a span, of whose packets the times are given.

    Decoders leave out more than they tell of: what refers to a lost frame. Without damage a
    packet may well be no frame.
    """
    seen = sum(map(span.holds, found.damaged))
    return max(seen, len(packets) - sum(map(span.holds, found.times))) if seen else 0


def _gaps(positions: Collection[int], between: int) -> set[int]:
    """All positions of `indices_between`."""
    gaps = indices_between(np.array(sorted(positions)), between)
    return {position for gap in gaps for position in gap.tolist()}


@dataclasses.dataclass(frozen=True)
class _Span:
    """The part of a video that is asked for."""

    path: Path
    start: float | None
    end: float | None
    annotated: tuple[float, ...] = ()

    @property
    def seek(self) -> float | None:
        """Where decoding may begin, in seconds; None = at the start of the file."""
        return None if self.start is None or self.start <= _LEAD else self.start - _LEAD

    def holds(self, time: float) -> bool:
        """Whether a frame that is shown from then on is in it."""
        return (self.start is None or time >= self.start) and (self.end is None or time < self.end)

    def bounds(self, times: list[float], frame_seconds: float) -> tuple[int, int]:
        """First frame and the one after the last, as positions in `times`."""
        first, last = 0, len(times)
        if self.start is not None:
            over = times[-1] + frame_seconds
            if self.start >= over:
                raise VideoError(
                    self.path,
                    f"start {self.start} s is beyond its end at {over:.2f} s",
                    "correct the start, or leave it out",
                )
            first = max(0, int(np.searchsorted(times, self.start, "right")) - 1)
        if self.end is not None and self.end <= times[-1]:
            last = int(np.searchsorted(times, self.end, "right")) - 1
        return first, max(first + 1, last)

    def sample(self, times: list[float], frames: int, frame_seconds: float) -> list[int]:
        """Positions in `times` of the frames to take."""
        first, last = self.bounds(times, frame_seconds)
        chosen = first + sample_indices(last - first, frames)
        over = times[-1] + frame_seconds
        over = over if self.end is None else min(over, self.end)
        seconds = [second for second in self.annotated if second < over]
        shown = np.searchsorted(times, [second + _SAME for second in seconds], "right") - 1
        inside = [int(frame) for frame in shown if first <= frame < last]
        return [int(i) for i in with_annotated(chosen, inside)]


@dataclasses.dataclass
class _Found:
    """What one decode gave: the time of every frame, the pixels of the wanted ones, damage."""

    times: list[float]
    images: dict[int, np.ndarray]
    damaged: set[float] = dataclasses.field(default_factory=set)  # seconds
    width: int = 0
    height: int = 0


@dataclasses.dataclass(frozen=True)
class _Source:
    """An open container and its video stream."""

    path: Path
    head: bytes
    container: Any
    stream: Any

    @property
    def is_image(self) -> bool:
        name = self.container.format.name
        return name == "image2" or name.endswith("_pipe")

    @property
    def frame_seconds(self) -> float:
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(1 / rate) if rate else 0.04

    def check_complete(self) -> None:
        """Raises a VideoError if the file announces more bytes than it holds."""
        needed = max((e.pos + e.size for e in self.stream.index_entries[-64:]), default=0)
        needed = max(needed, file_head.declared_size(self.head))
        size = self.path.stat().st_size
        if needed > 1.01 * size:
            evidence = f"it announces {needed} bytes and has {size}"
            raise VideoError(self.path, f"is truncated ({evidence})", "copy or download it again")

    def list_times(self, *, seek: float | None, end: float | None) -> list[float]:
        """Presentation times of the packets from `seek` to `end`, in order.

        Empty if there are none, or if the packets after a seek do not tell their time.
        """
        self._seek(seek)
        times: list[float] = []
        for packet in self._packets():
            if not packet.size or packet.is_discard:
                continue
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None and seek is not None:
                return []
            times.append(self._seconds(stamp, len(times)))
            # Packets come in decoding order: nothing shown before `end` follows this one.
            if end is not None and packet.dts and self._seconds(packet.dts, 0) > end:
                break
        return sorted(times)

    def decode(
        self,
        wanted: Collection[int],
        *,
        seek: float | None,
        end: float | None,
        max_side: int | None,
    ) -> _Found:
        """Decodes everything up to `end`, converting the wanted positions."""
        found, reformatter, wanted = _Found([], {}), VideoReformatter(), set(wanted)
        size, shown = None, Orientation()
        self._seek(seek)
        for frame in self._frames(found):
            if size is None:
                size = fit(frame.width, frame.height, max_side)
                shown = Orientation.of(frame)
                found.width, found.height = shown.size(frame.width, frame.height)
            position = len(found.times)
            time = self._seconds(frame.pts, position)
            if frame.is_corrupt:
                found.damaged.add(time)
            found.times.append(max(time, found.times[-1]) if found.times else time)
            if position in wanted:
                rgb = reformatter.reformat(
                    frame, width=size[0], height=size[1], format="rgb24", interpolation="AREA"
                )
                found.images[position] = shown.apply(rgb.to_ndarray())
            if end is not None and time > end:
                break
        return found

    def video_info(self, video_id: str, found: _Found) -> VideoInfo:
        """Facts of the whole file; the size is that of the first decoded frame."""
        if self.is_image:
            return VideoInfo(video_id, found.width, found.height, fps=0.0, duration=0.0)
        if self.stream.duration:
            duration = float(self.stream.duration * self.stream.time_base)
        elif self.container.duration:
            duration = self.container.duration / av.time_base
        else:
            duration = found.times[-1] + self.frame_seconds
        fps, seen = 1 / self.frame_seconds, found.times[-1] - found.times[0]
        if seen > 0 and not 0.9 < (len(found.times) - 1) / seen / fps < 1.1:
            fps = (len(found.times) - 1) / seen  # the container's rate is not that of its frames
        return VideoInfo(video_id, found.width, found.height, fps, duration)

    def _seconds(self, timestamp: int | None, position: int) -> float:
        if timestamp is None:
            return position * self.frame_seconds
        return max(0.0, float((timestamp - (self.stream.start_time or 0)) * self.stream.time_base))

    def _seek(self, seconds: float | None) -> None:
        if seconds is not None:
            offset = int(seconds / self.stream.time_base) + (self.stream.start_time or 0)
            self.container.seek(offset, stream=self.stream)

    def _packets(self, found: _Found | None = None) -> Iterator[Any]:
        """Packets; where a damaged container ends too early is noted in `found`."""
        try:
            yield from self.container.demux(self.stream)
        except FFmpegError:
            if found is not None:
                found.damaged.add(self._seconds(None, len(found.times)))

    def _frames(self, found: _Found) -> Iterator[Any]:
        """Frames; those that should have come of damaged packets are noted in `found`."""
        for packet in self._packets(found):
            damaged = packet.is_corrupt
            try:
                yield from packet.decode()
            except FFmpegError:
                damaged = True
            if damaged:
                found.damaged.add(self._seconds(packet.pts, len(found.times)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    """Opens a file for FFmpeg by its content alone: its name cannot mean a pattern or a URL."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            head = file.read(file_head.LENGTH)
        except FileNotFoundError:
            raise VideoError(path, "does not exist", "correct the path") from None
        except IsADirectoryError:
            raise VideoError(path, "is a folder", "name a video file") from None
        except PermissionError:
            raise VideoError(
                path, "may not be read (no permission)", "allow it with chmod +r, or change user"
            ) from None
        except OSError as error:
            kind = VideoError if error.errno in _BAD_NAME else StorageError
            reason = f"cannot be read ({error.strerror or error})"
            raise kind(path, reason, "check its path and the disk") from error
        if not head:
            raise VideoError(path, "is empty (0 bytes)", "copy or download it again")
        if file_head.is_text(head):
            # Also keeps out playlists, which would open other files.
            raise VideoError(path, "holds text, not video", "replace it with the video itself")
        file.seek(0)
        try:
            container = stack.enter_context(av.open(file, metadata_errors="ignore"))
        except (FFmpegError, ValueError) as error:
            raise _unreadable(path, head, error) from error
        streams = [
            stream
            for stream in container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
            kinds = "audio" if container.streams.audio else kinds
            raise VideoError(path, f"has no video stream (only {kinds})", "remove it from the list")
        stream = streams[0]
        stream.thread_type = "AUTO"
        yield _Source(path, head, container, stream)


def _unreadable(path: Path, head: bytes, error: Exception) -> VideoError:
    if head[4:8] == b"ftyp":
        return VideoError(
            path, "is truncated (an MP4 without its index)", "copy or download it again"
        )
    return VideoError(
        path,
        f"is no video that FFmpeg knows ({getattr(error, 'strerror', None) or error})",
        "convert it, for example to H.264 MP4",
    )

"""What a run did and what a split holds after it, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tokenization.records import Quarantined, ShardInfo
from tokenization.tubelets import count_tubelets

_SHOWN = 5  # quarantined videos that the summary names


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run did.

    Attributes:
      videos: that it read, or tried to.
      seconds: on the clock, the start of the processes included.
      processes: that shared the work.
    """

    videos: int
    seconds: float
    processes: int

    def __str__(self) -> str:
        rate = self.videos / max(1e-9, self.seconds)
        return f"{rate:.2f} videos a second, processes: {self.processes}"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a dataset's split holds after a run.

    Attributes:
      videos: records.
      frames: of all records.
      trajectories: of all records.
      tubelets: tokens that 2x16x16 tubelets at 224x224 would take for the same frames.
      quarantine: entries that gave no record.
      repeated: videos too short for the asked number of frames.
      skipped: entries that were done before this run.
      seconds: processing time, summed over processes, of all shards.
      run: how long this run took.
      images: records of a single frame, where others have more.
    """

    videos: int
    frames: int
    trajectories: int
    tubelets: int
    quarantine: tuple[Quarantined, ...]
    repeated: int
    skipped: int
    seconds: float
    run: Run | None = dataclasses.field(default=None, compare=False)
    images: int = 0

    @property
    def bad(self) -> float:
        """Fraction of the entries that gave no record."""
        return len(self.quarantine) / max(1, self.videos + len(self.quarantine))

    def __str__(self) -> str:
        lines = [
            f"{count(self.videos, 'video')}, {count(self.frames, 'frame')} "
            f"({self.skipped} {'was' if self.skipped == 1 else 'were'} done before)"
        ]
        if self.videos:
            lines += [
                f"{self.trajectories / self.videos:.1f} trajectories a video, against "
                f"{self.tubelets / self.videos:.0f} tubelets of 2x16x16 at 224x224: "
                f"{self.tubelets / max(1, self.trajectories):.1f}x fewer tokens",
                f"{self.seconds / self.videos:.2f} seconds a video in one process"
                + (f"; this run: {self.run}" if self.run else ""),
            ]
        if self.images:
            what = (
                "1 record is an image" if self.images == 1 else f"{self.images} records are images"
            )
            lines.append(
                f"{what}, of one frame, among videos, and a model of videos refuses such: give "
                "images an --output of their own, or leave them out of --input and pass --overwrite"
            )
        if self.repeated:
            lines.append(
                f"{count(self.repeated, 'video')} with fewer frames than asked: the last one is "
                "repeated (--config=configs/tokenization/classical.py:frames=N asks for N)"
            )
        if self.quarantine:
            bad = len(self.quarantine)
            lines.append(f"{count(bad, 'video')} could not be read ({self.bad:.1%}):")
            lines += [
                f"  {bad.id}: {bad.path} {bad.reason}; {bad.remedy}"
                for bad in self.quarantine[:_SHOWN]
            ]
            lines += [f"  and {bad - _SHOWN} more"] if bad > _SHOWN else []
        return "\n".join(lines)


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def summarize(infos: Sequence[ShardInfo], *, skipped: int, run: Run | None) -> Summary:
    """The summary of a split's finished shards."""
    frames = [count for info in infos for count in info.frames]
    return Summary(
        videos=len(frames),
        frames=sum(frames),
        trajectories=sum(sum(info.trajectories) for info in infos),
        tubelets=sum(map(count_tubelets, frames)),
        quarantine=tuple(bad for info in infos for bad in info.quarantine),
        repeated=sum(info.repeated for info in infos),
        skipped=skipped,
        seconds=sum(info.seconds for info in infos),
        run=run,
        images=frames.count(1) if max(frames, default=0) > 1 else 0,
    )

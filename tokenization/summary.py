"""What a run did and what a split holds after it, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tokenization.records import Quarantined, ShardInfo
from tokenization.tubelets import count_tubelets

_SHOWN = 5  # videos of a kind that a message names


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
      short: ids of the repeated ones, as far as they are known.
      empty: ids of videos without any trajectory.
      damaged: ids of videos with damaged frames, and how many of these there are.
      asking: how to ask for another number of frames; empty = that cannot be chosen.
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
    short: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    damaged: tuple[tuple[str, int], ...] = ()
    asking: str = dataclasses.field(default="", compare=False)

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
            # Where nothing was found in a video, few tokens are no merit.
            ratio = "" if self.empty else f": {self.tubelets / self.trajectories:.1f}x fewer tokens"
            lines += [
                f"{self.trajectories / self.videos:.1f} trajectories a video, against "
                f"{self.tubelets / self.videos:.0f} tubelets of 2x16x16 at 224x224{ratio}",
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
            named = f" ({_named(self.short)})" if self.short else ""
            lines.append(
                f"{count(self.repeated, 'video')} with fewer frames than asked{named}: the last "
                f"one is repeated{'; ' * bool(self.asking)}{self.asking}"
            )
        if self.empty:
            lines.append(
                f"{count(len(self.empty), 'video')} without any trajectory: {_named(self.empty)}"
            )
        if self.damaged:
            told = [f"{name} ({count(frames, 'frame')})" for name, frames in self.damaged]
            lines.append(
                f"{count(len(told), 'video')} with damaged frames, which were passed over or "
                f"decoded in part: {_named(told)}; copy or download them again"
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


def some(
    names: Sequence[str], *, most: int = _SHOWN, form: Callable[[str], str] = str, where: str = ""
) -> str:
    """The first `most` of the names, how many more there are, and where those are listed."""
    more = len(names) - most
    rest = f" and {more} more{f' ({where})' * bool(where)}" if more > 0 else ""
    return ", ".join(map(form, names[:most])) + rest


def _named(names: Sequence[str]) -> str:
    return some(names, where="stats.md")


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
        short=tuple(name for info in infos for name in info.short),
        empty=tuple(name for info in infos for name in info.empty),
        damaged=tuple(one for info in infos for one in info.with_damage),
    )

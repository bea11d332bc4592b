"""Entries -> a split of a dataset of records: what is done is kept, what failed is named.

The work list is one of shards. This process alone writes them, whatever the engine: workers send
it the bytes of a record, or the reason why there is none. So a worker that dies, is restarted or
does an entry twice can neither lose a record nor write one twice, only the videos must be
readable from all machines, and the same entries give the same bytes on any number of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from absl import logging
from tqdm import tqdm

from tokenization import journal, kept, manifest, portions, records, shards
from tokenization.engines.crew import Crew, Patience
from tokenization.engines.protocol import Engine, EngineError
from tokenization.files import remove_leftovers, write_text
from tokenization.folder_lock import only_writer
from tokenization.kept import OutputError
from tokenization.manifest import Entry
from tokenization.portions import Plan, Portion
from tokenization.recorder import Outcome, gave_up
from tokenization.records import ShardInfo
from tokenization.shard_files import SHARD_INFO, journal_path, unfinished_path
from tokenization.summary import Run, Summary, count, summarize

_WINDOW, _ROUNDS = 512, 32  # groups of entries at least, and for each worker


@runtime_checkable
class JobSettings(Protocol):
    """A frozen dataclass of all that decides what a record holds; a dataset's shards share it."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def record_size(self) -> int:
        """Side of stored frames and label maps, in pixels."""
        ...

    @property
    def shard_size(self) -> int:
        """Entries of the input in a shard."""
        ...


@dataclasses.dataclass(frozen=True)
class Job:
    """How entries become records.

    Attributes:
      settings: of all.
      make: builds what turns entries into their outcomes, once in each worker; picklable.
      fingerprint: of entries; a JSON value of each, which changes when it or its files do.
      title: for the progress bar.
      together: entries that a worker gets at once. Those of which it dies, or for which it takes
        too long, are tried again one by one, which then count as tries.
      noted: JSON values on which records depend, kept in the output folder; None = all settings.

    Raises:
      ValueError: less than one entry at once.
    """

    settings: JobSettings
    make: Callable[[], Callable[[Sequence[Entry]], list[Outcome]]]
    fingerprint: Callable[[Iterable[Entry]], Sequence[Any]] = manifest.fingerprint
    title: str = "extract"
    together: int = 1
    noted: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.together < 1:
            raise ValueError(f"{self.together} videos at once cannot be; take at least 1")


@dataclasses.dataclass(frozen=True)
class OneByOne:
    """For `Job.make`, from what builds a function of a single entry."""

    make: Callable[[], Callable[[Entry], Outcome]]

    def __call__(self) -> Callable[[Sequence[Entry]], list[Outcome]]:
        """Builds it."""
        function = self.make()
        return lambda entries: [function(entry) for entry in entries]


def build_split(
    entries: Sequence[Entry],
    output: str | os.PathLike[str],
    job: Job,
    *,
    engine: Engine,
    split: str = "train",
    patience: Patience | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
) -> Summary:
    """Writes what is not done yet of a split.

    A run that is cut off keeps every record: of shards that are not finished, in `journal`.

    Args:
      entries: the videos.
      output: folder of the dataset; what is finished in it is kept.
      job: see `Job`.
      engine: where the work is done; it is entered only if there is any.
      split: name of the split.
      patience: when a video is given up.
      overwrite: remove records of other settings, of all splits, and videos that are not among
        the entries or whose files are gone, instead of raising.
      retry_quarantined: try quarantined entries again.

    Raises:
      OutputError: the folder holds records of other settings, or videos of this split that are
        not among the entries, or whose shards are done again without their files, or is a file.
      FolderInUse: another process writes to the folder.
      ValueError: no entries, none whose file exists, two with the same id, or a split of other
        characters than letters, digits and _.
      EngineError: workers cannot start, die whatever they are given, or all videos fail alike.
      OSError: the disk is full or cannot be written; what is finished is kept.
      KeyboardInterrupt: its notes say how much is kept.
    """
    output = Path(output)
    if split == "all" or not re.fullmatch(r"\w+", split):
        raise ValueError(
            f"split {split!r} must be of letters, digits and _, and not 'all'; choose another"
        )
    _check_entries(entries)
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; --output names the folder of the records")
    with only_writer(output):
        digest = kept.claim(
            output, job.noted or dataclasses.asdict(job.settings), overwrite=overwrite
        )
        for folder in (output, output / SHARD_INFO):
            remove_leftovers(folder)
        known = journal.read(output, split)
        done = kept.finished(
            output,
            split,
            {entry.id for entry in entries},
            begun=(outcome.id for outcome in known.values()),
            overwrite=overwrite,
        )
        plan = portions.plan(
            output,
            entries,
            ShardInfo(split, 0, job.settings.record_size, digest, ""),
            size=job.settings.shard_size,
            fingerprint=job.fingerprint,
            done=done,
            known=known,
            retry_quarantined=retry_quarantined,
        )
        kept.check_files(output, split, plan.again, overwrite=overwrite)
        run, unfinished, todo = None, unfinished_path(output, split), plan.todo
        if todo or plan.surplus:
            # Until all is written, nobody mistakes a part for the whole, also after another split.
            write_text(unfinished, f"{count(len(entries), 'video')}\n")
            (output / "dataset_info.json").unlink(missing_ok=True)
        for info in plan.surplus:
            shards.remove_shard(output, info)
        del known  # else all of it is held until the end, also of shards that are written
        journal.restart(output, split, plan.begun)
        if todo:
            _tell_of_changes(output, split, len(plan.again))
            written: set[int] = set()
            try:
                run = _work(output, plan, job, engine, patience, written)
            except KeyboardInterrupt as error:
                open_ones = [portion for portion in todo if portion.info.index not in written]
                error.add_note(_what_is_kept(output, split, open_ones, len(entries)))
                raise
        if todo or unfinished.exists() or not (output / "dataset_info.json").is_file():
            unfinished.unlink(missing_ok=True)
            shards.write_metadata(output)
        return summarize(
            [info for info in records.finished_shards(output) if info.split == split],
            skipped=len(entries) - plan.left,
            run=run,
        )


def _what_is_kept(output: Path, split: str, todo: Sequence[Portion], videos: int) -> str:
    """How many of the videos are on the disk, of which these shards are not written."""
    known = journal.read(output, split)
    safe = videos - sum(len(portion.places_left(portion.begun(known))) for portion in todo)
    return f"{safe} of {count(videos, 'video')} {'is' if safe == 1 else 'are'} done and kept"


def _check_entries(entries: Sequence[Entry]) -> None:
    """Raises ValueError for a list that is wrong as a whole, not in one of its videos."""
    if not entries:
        raise ValueError("no videos to extract; give at least one entry")
    if len({entry.id for entry in entries}) < len(entries):
        raise ValueError("two entries have the same id; make ids unique")
    tried = [entry for entry in entries if entry.problem is None]
    if tried and len(tried) == len(entries) and not any(os.path.lexists(e.path) for e in tried):
        raise ValueError(
            f"none of the {count(len(entries), 'video')} exists, the first would be "
            f"{tried[0].path}; paths in a manifest are relative to the manifest's own folder: "
            "give --input the manifest where its videos lie, or write absolute paths in it"
        )


def _tell_of_changes(output: Path, split: str, again: int) -> None:
    """Says how many videos are done again though they were finished, and why."""
    if again:
        logging.warning(
            "%s: %s of split %r done again, as the entries, their order or their files changed in "
            "their shards",
            output,
            count(again, "finished video"),
            split,
        )


def _work(
    output: Path,
    plan: Plan,
    job: Job,
    engine: Engine,
    patience: Patience | None,
    written: set[int],
) -> Run | None:
    """Does all entries that are not done yet, and writes each shard when its last one is.

    What is begun is taken out of the plan; the numbers of shards are added to `written`.
    """
    begin, bad = time.monotonic(), 0
    places: list[tuple[Portion, int]] = []
    unfinished: dict[int, dict[int, Outcome]] = {}
    finished: list[tuple[Portion, dict[int, Outcome]]] = []
    for portion in plan.todo:
        begun = plan.begun.pop(portion.info.index)
        unfinished[portion.info.index] = found = portion.by_place(begun)
        places += [(portion, place) for place in portion.places_left(begun)]
        if len(found) == portion.missing:  # the last run ended before it was written
            finished.append((portion, unfinished.pop(portion.info.index)))
    _write_all(output, finished, written)
    if not places:
        return None
    failures = _Failures((patience or Patience()).in_a_row)
    with engine, _progress(len(places), job.title) as bar:
        crew = Crew(engine, job.make, give_up=_give_up, patience=patience, name=_names)
        outcomes = _outcomes(crew, [p.entries[place] for p, place in places], job, patience)
        with contextlib.closing(outcomes):
            for number, outcome in outcomes:
                portion, place = places[number]
                found = unfinished[portion.info.index]
                found[place] = outcome
                if len(found) == portion.missing:
                    finished.append((portion, unfinished.pop(portion.info.index)))
                elif outcome.quarantined is None:
                    path = journal_path(output, portion.info.split, portion.info.index)
                    journal.append(path, portion.keys[place], outcome)
                # While videos fail in a row, it is not known yet whether they are at fault.
                if not failures.after(outcome):
                    _write_all(output, finished, written)
                if outcome.quarantined is not None:
                    bad += 1
                    bar.set_postfix(quarantined=bad, refresh=False)
                bar.update()
        _write_all(output, finished, written)
    return Run(len(places), time.monotonic() - begin, crew.most)


class _Failures:
    """Videos that fail for one reason, one after the other: a disk or a device may have gone.

    Args:
      most: that may; None = any number.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._reason = ""
        self._count = 0

    def after(self, outcome: Outcome) -> int:
        """How many there are, with this one.

        Raises:
          EngineError: more than may be.
        """
        reason = "" if outcome.quarantined is None else outcome.quarantined.reason
        self._count = self._count + 1 if reason == self._reason else 1
        self._reason = reason
        if not reason:
            return 0
        if self._most is not None and self._count >= self._most:
            raise EngineError(
                f"{self._count} videos in a row failed alike, the last one {outcome.id}: {reason}. "
                "Is it the machine, its disks or its device? None of their shards is written; set "
                "it right and run the same command again, or pass --in_a_row=0 if they are to be "
                "quarantined"
            )
        return self._count


def _outcomes(
    crew: Crew[Sequence[Entry], list[Outcome]],
    entries: Sequence[Entry],
    job: Job,
    patience: Patience | None,
) -> Generator[tuple[int, Outcome], None, None]:
    """Number and outcome of every entry, as they are done.

    Those of groups that failed go alone after each window of groups: the rest of their shards is
    held in memory until then.
    """
    size = job.together
    usual = patience or Patience()
    once = Patience(1, usual.seconds and size * usual.seconds)
    starts = list(range(0, len(entries) - size + 1, size)) if size > 1 else []
    left = range(len(starts) * size, len(entries))
    done = 0
    while done < len(starts):
        # At the end of a window workers wait for the last one: each has many groups before.
        window = starts[done : done + max(_WINDOW, _ROUNDS * crew.most)]
        done += len(window)
        alone = [] if done < len(starts) else list(left)
        groups = [entries[first : first + size] for first in window]
        for group, outcomes in crew.map(groups, once):
            if not outcomes:
                alone += range(window[group], window[group] + size)
            yield from enumerate(outcomes, window[group])
        yield from _alone(crew, entries, alone)
    if not starts:
        yield from _alone(crew, entries, left)


def _alone(
    crew: Crew[Sequence[Entry], list[Outcome]], entries: Sequence[Entry], numbers: Sequence[int]
) -> Generator[tuple[int, Outcome], None, None]:
    for index, outcomes in crew.map([[entries[number]] for number in numbers]):
        yield numbers[index], outcomes[0]


def _give_up(entries: Sequence[Entry], troubles: tuple[str, ...]) -> list[Outcome]:
    """The outcome of a single entry; of several none, as it is not known whose fault it is."""
    return [gave_up(entry, troubles) for entry in entries] if len(entries) == 1 else []


def _names(entries: Sequence[Entry]) -> str:
    return ", ".join(entry.id for entry in entries)


def _progress(total: int, title: str) -> tqdm:
    return tqdm(total=total, desc=title, unit="video", mininterval=1, dynamic_ncols=True)


def _write_all(
    output: Path, finished: list[tuple[Portion, dict[int, Outcome]]], written: set[int]
) -> None:
    """Writes shards, empties the list and adds their numbers to what is written."""
    while finished:
        portion, found = finished.pop(0)
        info = portion.info
        if portion.old is not None:  # read only now: as long as videos fail, many shards wait
            outcomes = kept.outcomes(output, portion.old)
            for place, outcome in zip(portion.places_kept(), outcomes, strict=True):
                # While the new shard takes the place of the old one, a kill leaves neither.
                path = journal_path(output, info.split, info.index)
                journal.append(path, portion.keys[place], outcome)
                found[place] = outcome
            info = dataclasses.replace(info, repeated=kept.unnamed_short(portion.old))
        _write(output, info, [found[place] for place in range(len(found))])
        written.add(info.index)


def _write(output: Path, info: ShardInfo, outcomes: Sequence[Outcome]) -> None:
    good = [outcome for outcome in outcomes if outcome.quarantined is None]
    info = dataclasses.replace(
        info,
        ids=tuple(outcome.id for outcome in good),
        trajectories=tuple(outcome.trajectories for outcome in good),
        frames=tuple(outcome.frames for outcome in good),
        damaged=tuple(outcome.damaged for outcome in good),
        repeated=info.repeated + sum(outcome.repeated for outcome in good),
        short=tuple(outcome.id for outcome in good if outcome.repeated),
        seconds=sum(outcome.seconds for outcome in outcomes),
        quarantine=tuple(o.quarantined for o in outcomes if o.quarantined is not None),
    )
    shards.write_shard(output, info, [outcome.data for outcome in good])
    journal_path(output, info.split, info.index).unlink(missing_ok=True)

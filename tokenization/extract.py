"""Videos -> records of their trajectories.

  python -m tokenization.extract --input="clips/*.mp4" --output=records
  python -m tokenization.extract --input=train.jsonl --output=records --split=train
  python -m tokenization.extract --input=train.jsonl --output=records \\
      --config=configs/tokenization/classical.py --workers=8

Work is cut into shards of `shard_size` entries, in the order of the input. A finished shard is
skipped when the command is run again; one that is new, half-done, or whose entries or files
(size and time of last change) changed is done (again). A video that cannot be read goes to
`quarantine.jsonl` and stops nothing; it is tried again when its file changes, or with
--retry_quarantined.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import app, flags
from tqdm import tqdm

from tokenization import interrupts, manifest, pipeline, records, shards, workers
from tokenization.files import remove_leftovers, write_text
from tokenization.manifest import Entry
from tokenization.pipeline import PipelineSettings
from tokenization.recorder import ExtractSettings, Outcome, Recorder, Tokenizer, died
from tokenization.records import Quarantined, ShardInfo
from tokenization.tubelets import count_tubelets
from trajvit_jax import config as configs

_SETTINGS_FILE = "settings.json"
_SHOWN = 5  # quarantined videos that the summary names


class OutputError(ValueError):
    """An output folder that this run may not continue; the message says why and what to do."""


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
      skipped: entries in shards that were finished before this run.
      seconds: processing time, summed over processes, of all shards.
      run: how long this run took.
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

    @property
    def bad(self) -> float:
        """Fraction of the entries that gave no record."""
        return len(self.quarantine) / max(1, self.videos + len(self.quarantine))

    def __str__(self) -> str:
        lines = [
            f"{_count(self.videos, 'video')}, {_count(self.frames, 'frame')} "
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
        if self.repeated:
            lines.append(
                f"{_count(self.repeated, 'video')} with fewer frames than asked: the last one is "
                "repeated (--config=configs/tokenization/classical.py:frames=N asks for N)"
            )
        if self.quarantine:
            bad = len(self.quarantine)
            lines.append(f"{_count(bad, 'video')} could not be read ({self.bad:.1%}):")
            lines += [
                f"  {bad.id}: {bad.path} {bad.reason}; {bad.remedy}"
                for bad in self.quarantine[:_SHOWN]
            ]
            lines += [f"  and {bad - _SHOWN} more"] if bad > _SHOWN else []
        return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def extract(
    entries: Sequence[Entry],
    output: str | os.PathLike[str],
    settings: ExtractSettings | None = None,
    *,
    split: str = "train",
    processes: int | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
    build: Callable[[PipelineSettings], Tokenizer] = pipeline.build,
) -> Summary:
    """Tokenizes videos into a split of a dataset of records.

    Args:
      entries: the videos.
      output: folder of the dataset; what is finished in it is kept.
      settings: see `ExtractSettings`.
      split: name of the split.
      processes: None = one a CPU core that this process may use.
      overwrite: remove the shards of other settings or entries instead of raising.
      retry_quarantined: do shards that have quarantined entries again.
      build: makes the tokenizer, once in each process.

    Raises:
      OutputError: the folder holds records of other settings, or of a longer list, or is a file.
      ValueError: no entries, none whose file exists, two with the same id, or a split of other
        characters than letters, digits and _.
      StartError: worker processes cannot start.
      OSError: the disk is full or cannot be written; finished shards are kept.
    """
    output = Path(output)
    settings = settings or ExtractSettings()
    if split == "all" or not re.fullmatch(r"\w+", split):
        raise ValueError(
            f"split {split!r} must be of letters, digits and _, and not 'all'; choose another"
        )
    if not entries:
        raise ValueError("no videos to extract; give at least one entry")
    if len({entry.id for entry in entries}) < len(entries):
        raise ValueError("two entries have the same id; make ids unique")
    _check_files(entries)
    digest = _claim(output, settings, overwrite=overwrite)
    for folder in (output, output / records.SHARD_INFO):
        remove_leftovers(folder)
    size = settings.shard_size
    chunks = [entries[i : i + size] for i in range(0, len(entries), size)]
    done = {info.index: info for info in records.finished_shards(output) if info.split == split}
    if overwrite and len(done) > len(chunks):
        shards.remove_split(output, split)
        done = {}
    if len(done) > len(chunks):
        raise OutputError(
            f"{output} has {len(done)} shards of split {split!r} and the input fills only "
            f"{len(chunks)}; choose another --output, another --split, or pass --overwrite"
        )
    plan = [
        ShardInfo(split, index, settings.record_size, digest, _hash(manifest.fingerprint(chunk)))
        for index, chunk in enumerate(chunks)
    ]
    todo = [
        info
        for info in plan
        if not _is_done(output, info, done.get(info.index), retry_quarantined=retry_quarantined)
    ]
    todo_entries = [entry for info in todo for entry in chunks[info.index]]
    run = None
    if todo:
        begin = time.monotonic()
        # Until all is written, nobody mistakes a part for the whole.
        (output / "dataset_info.json").unlink(missing_ok=True)
        count = workers.available_cores() if processes is None else processes
        count = min(count, len(todo_entries))
        outcomes = workers.ordered_map(
            functools.partial(Recorder, settings, build),
            todo_entries,
            workers=count,
            died=died,
        )
        with contextlib.closing(outcomes), _progress(len(todo_entries)) as bar:
            for info in todo:
                _write(output, info, [_next(outcomes, bar) for _ in chunks[info.index]])
        run = Run(len(todo_entries), time.monotonic() - begin, count)
    if todo or not (output / "dataset_info.json").is_file():
        shards.write_metadata(output)
    return _summary(
        [info for info in records.finished_shards(output) if info.split == split],
        skipped=len(entries) - len(todo_entries),
        run=run,
    )


def _check_files(entries: Sequence[Entry]) -> None:
    """Raises ValueError if there is no file at all: then the list is wrong, not a video."""
    tried = [entry for entry in entries if entry.problem is None]
    if tried and len(tried) == len(entries) and not any(os.path.lexists(e.path) for e in tried):
        raise ValueError(
            f"none of the {_count(len(entries), 'video')} exists, the first would be "
            f"{tried[0].path}; paths in a manifest are relative to the manifest's own folder: "
            "give --input the manifest where its videos lie, or write absolute paths in it"
        )


def _claim(output: Path, settings: ExtractSettings, *, overwrite: bool) -> str:
    """Notes the settings in the output folder, or checks them against those noted there."""
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; --output names the folder of the records")
    path = output / _SETTINGS_FILE
    new = json.loads(records.to_json(dataclasses.asdict(settings)))
    if path.is_file() and records.finished_shards(output):
        old = json.loads(path.read_text("utf-8"))
        if old != new and not overwrite:
            changed = "; ".join(configs.differences(old, new))
            raise OutputError(
                f"{output} holds records of other settings ({changed}); "
                "choose another --output, or pass --overwrite to remove them"
            )
        if old != new:
            for split in {info.split for info in records.finished_shards(output)}:
                shards.remove_split(output, split)
    write_text(path, json.dumps(new, indent=2, sort_keys=True) + "\n")
    return _hash(new)


def _hash(value: object) -> str:
    return hashlib.sha256(records.to_json(value).encode()).hexdigest()[:16]


def _is_done(
    output: Path, wanted: ShardInfo, found: ShardInfo | None, *, retry_quarantined: bool
) -> bool:
    return (
        found is not None
        and (found.settings, found.inputs) == (wanted.settings, wanted.inputs)
        and shards.shard_path(output, wanted.split, wanted.index).is_file()
        and not (retry_quarantined and found.quarantine)
    )


def _progress(total: int) -> tqdm:
    return tqdm(total=total, desc="extract", unit="video", mininterval=1, dynamic_ncols=True)


def _next(outcomes: Iterator[Outcome], bar: tqdm) -> Outcome:
    outcome = next(outcomes)
    bar.update()
    return outcome


def _write(output: Path, info: ShardInfo, outcomes: Sequence[Outcome]) -> None:
    good = [outcome for outcome in outcomes if outcome.quarantined is None]
    info = dataclasses.replace(
        info,
        ids=tuple(outcome.id for outcome in good),
        trajectories=tuple(outcome.trajectories for outcome in good),
        frames=tuple(outcome.frames for outcome in good),
        repeated=sum(outcome.repeated for outcome in good),
        seconds=sum(outcome.seconds for outcome in outcomes),
        quarantine=tuple(o.quarantined for o in outcomes if o.quarantined is not None),
    )
    shards.write_shard(output, info, [outcome.data for outcome in good])


def _summary(infos: Sequence[ShardInfo], *, skipped: int, run: Run | None) -> Summary:
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
    )


def _read_settings(config: str | None) -> ExtractSettings:
    """Settings of a config file, or the defaults.

    Raises:
      ValueError: another kind of config, or a setting that does not exist.
      FileNotFoundError: no such file.
    """
    if not config:
        return ExtractSettings()
    loaded = configs.load(config)
    if "model" in loaded:
        raise ValueError(
            f"{config} is a training config, for python -m trajvit_jax.main; --config takes one "
            "like configs/tokenization/classical.py, or leave it out"
        )
    return configs.to_settings(ExtractSettings, loaded)


def define_flags() -> None:
    """Defines the command's flags; not at import, where they would clash with other commands."""
    flags.DEFINE_string(
        "input",
        None,
        'Manifest (*.jsonl), folder, video, or quoted pattern ("clips/**/*.mp4"). A manifest has '
        'one JSON object a line: {"id": "a", "path": "a.mp4", "start": 0.5, "end": 9, "captions": '
        '["..."], "label": "..."}; only id and path are needed; a path is absolute, or relative '
        "to the manifest's folder and below it.",
        required=True,
    )
    flags.DEFINE_string("output", None, "Folder of the dataset of records.", required=True)
    flags.DEFINE_string(
        "config", None, "Settings, for example configs/tokenization/classical.py; else defaults."
    )
    flags.DEFINE_string("split", "train", "Name of the split to write.")
    flags.DEFINE_integer("workers", None, "Processes; one a CPU core by default.", lower_bound=1)
    flags.DEFINE_float(
        "max_bad", 0.05, "Exit with an error if more than this fraction cannot be read.", 0.0, 1.0
    )
    flags.DEFINE_bool("overwrite", False, "Remove shards of other settings or longer inputs.")
    flags.DEFINE_bool("retry_quarantined", False, "Do shards with unreadable videos again.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}; quote patterns: --input='*.mp4'")
    flag = flags.FLAGS
    try:
        summary = extract(
            manifest.read_entries(flag.input),
            flag.output,
            _read_settings(flag.config),
            split=flag.split,
            processes=flag.workers,
            overwrite=flag.overwrite,
            retry_quarantined=flag.retry_quarantined,
        )
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return interrupts.EXIT_CODE
    except (ValueError, OSError, workers.StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary)
    print(f"records: {flag.output} (stats.md, quarantine.jsonl)")
    if summary.bad > flag.max_bad:
        print(
            f"error: {summary.bad:.1%} of the videos could not be read, more than "
            f"--max_bad={flag.max_bad:.1%}; see {Path(flag.output) / 'quarantine.jsonl'}",
            file=sys.stderr,
        )
        return 1
    return 0


def run() -> None:
    """Runs the command; help, which absl ends as an error, is none."""
    define_flags()
    if {"-h", "--help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    interrupts.install("stopping; finished shards are kept")
    app.run(main)


if __name__ == "__main__":
    run()

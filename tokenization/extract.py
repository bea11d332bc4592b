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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import app, flags, logging
from tqdm import tqdm

from tokenization import manifest, pipeline, records, shards, workers
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
    """

    videos: int
    frames: int
    trajectories: int
    tubelets: int
    quarantine: tuple[Quarantined, ...]
    repeated: int
    skipped: int
    seconds: float

    @property
    def bad(self) -> float:
        """Fraction of the entries that gave no record."""
        return len(self.quarantine) / max(1, self.videos + len(self.quarantine))

    def __str__(self) -> str:
        videos = max(1, self.videos)
        lines = [
            f"{self.videos} videos, {self.frames} frames ({self.skipped} were done before)",
            f"{self.trajectories / videos:.1f} trajectories a video, against "
            f"{self.tubelets / videos:.0f} tubelets of 2x16x16 at 224x224: "
            f"{self.tubelets / max(1, self.trajectories):.1f}x fewer tokens",
            f"{self.seconds / videos:.2f} seconds a video in one process",
        ]
        if self.repeated:
            lines.append(f"{self.repeated} videos are short and repeat their last frame")
        if self.quarantine:
            lines.append(f"{len(self.quarantine)} videos could not be read ({self.bad:.1%}):")
            lines += [f"  {bad.id}: {bad.reason}" for bad in self.quarantine[:_SHOWN]]
        return "\n".join(lines)


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
      OutputError: the folder holds records of other settings, or of a longer list.
      ValueError: no entries, two with the same id, or a split of other characters than
        letters, digits and _.
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
    if todo:
        # Until all is written, nobody mistakes a part for the whole.
        (output / "dataset_info.json").unlink(missing_ok=True)
        count = workers.available_cores() if processes is None else processes
        outcomes = workers.ordered_map(
            functools.partial(Recorder, settings, build),
            todo_entries,
            workers=min(count, len(todo_entries)),
            died=died,
        )
        with contextlib.closing(outcomes), _progress(len(todo_entries)) as bar:
            for info in todo:
                _write(output, info, [_next(outcomes, bar) for _ in chunks[info.index]])
    if todo or not (output / "dataset_info.json").is_file():
        shards.write_metadata(output)
    return _summary(
        [info for info in records.finished_shards(output) if info.split == split],
        skipped=len(entries) - len(todo_entries),
    )


def _claim(output: Path, settings: ExtractSettings, *, overwrite: bool) -> str:
    """Notes the settings in the output folder, or checks them against those noted there."""
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
    return tqdm(total=total, desc="extract", unit="video", mininterval=0.5, dynamic_ncols=True)


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


def _summary(infos: Sequence[ShardInfo], *, skipped: int) -> Summary:
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
    )


def define_flags() -> None:
    """Defines the command's flags; not at import, where they would clash with other commands."""
    flags.DEFINE_string(
        "input",
        None,
        'Manifest (*.jsonl), folder, video, or quoted pattern ("clips/**/*.mp4"). A manifest has '
        'one JSON object a line: {"id": "a", "path": "a.mp4", "start": 0.5, "end": 9, "captions": '
        '["..."], "label": "..."}; only id and path are needed, paths are relative to its folder.',
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
        settings = ExtractSettings()
        if flag.config:
            settings = configs.to_settings(ExtractSettings, configs.load(flag.config))
        summary = extract(
            manifest.read_entries(flag.input),
            flag.output,
            settings,
            split=flag.split,
            processes=flag.workers,
            overwrite=flag.overwrite,
            retry_quarantined=flag.retry_quarantined,
        )
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except (ValueError, OSError, workers.StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary)
    print(f"records: {flag.output} (stats.md, quarantine.jsonl)")
    if summary.repeated:
        logging.warning(
            "%d videos have fewer frames than asked and repeat their last one", summary.repeated
        )
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
    app.run(main)


if __name__ == "__main__":
    run()

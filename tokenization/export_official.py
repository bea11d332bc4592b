"""Records -> files that the released TrajViT program reads.

  python -m tokenization.export_official --records=records --output=tree
  python -m tokenization.export_official --records=records --split=test --output=tree_test
  python -m tokenization.import_official --input=tree/manifest.jsonl --output=again   # and back

For each record: ID_short.mp4 (its frames, H.264 at 5 frames a second, as the released program
saves them), ID_mask.npz and ID_graph.npz beside it; for all of them annotations.json, which the
released program takes as --json_path and in its configs, and manifest.jsonl, for the way back: it
keeps the times of the frames, which the copies, all at one rate, do not tell. Files that are there
are kept: the same command goes on after an interruption.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from tqdm import tqdm

from tokenization import command, exit_codes, interrupts, records
from tokenization.encode import write_video
from tokenization.engines.crew import Crew
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import Engine, EngineError
from tokenization.files import write_text
from tokenization.folder_lock import only_writer
from tokenization.official_files import SHORT, Pair

_STATE = "exported_from.json"
_FPS = 5  # of the released program's copies
_QUALITY = 16  # constant rate factor of H.264, hard to tell from the original


def export_official(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    split: str = "train",
    engine: Engine | None = None,
) -> int:
    """Writes the released program's files of a split's records; returns how many there are.

    Args:
      source: folder of the dataset of records.
      output: folder of the tree.
      split: of the dataset.
      engine: where the work is done; None = processes of this machine.

    Raises:
      RecordsError: no such dataset or split.
      ValueError: the tree holds files of other records, an id is no path below it, or two ids are
        the same one.
      FolderInUse: another process writes to the folder.
      OSError: the disk is full or cannot be written.
    """
    source, output = Path(source).absolute(), Path(output)
    videos = records.open_records(source, split)
    ids = [
        name for info in records.finished_shards(source) if info.split == split for name in info.ids
    ]
    _check_paths(ids, source, output)
    with only_writer(output):
        _claim(output, {"records": os.fspath(source), "split": split, "hash": videos.fingerprint})
        lines: dict[int, dict[str, Any]] = {}
        make = functools.partial(_Exporter, source, split, output)
        with engine or LocalEngine() as started, _progress(len(ids)) as bar:
            crew = Crew(started, make, give_up=_give_up, name=lambda index: ids[index])
            for number, line in crew.map(range(len(ids))):
                lines[number] = line
                bar.update()
        entries = [lines[number] for number in range(len(ids))]
        write_text(output / "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in entries))
        released = [
            {"video": line["path"], "caption": _one_or_all(line["captions"])} for line in entries
        ]
        write_text(output / "annotations.json", json.dumps(released, indent=1) + "\n")
    return len(ids)


def _check_paths(ids: Sequence[str], source: Path, output: Path) -> None:
    """Raises ValueError for an id that is no path below the tree, or for two of one path."""
    seen: dict[str, str] = {}
    for name in ids:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise ValueError(f"{source}: the id {name!r} cannot be a path below {output}")
        # On some disks upper and lower case are one name, and so are two ways to write an accent.
        path = unicodedata.normalize("NFC", Path(name).as_posix().casefold())
        if path in seen:
            raise ValueError(
                f"{source}: the ids {seen[path]!r} and {name!r} are one path below {output}; make "
                "them differ in more than case or slashes"
            )
        seen[path] = name


def _progress(total: int) -> tqdm:
    return tqdm(total=total, desc="export", unit="video", mininterval=1, dynamic_ncols=True)


def _claim(output: Path, state: dict[str, str]) -> None:
    """Notes which records the tree is of, or checks them against those noted there."""
    path = output / _STATE
    if path.is_file() and (found := json.loads(path.read_text("utf-8"))) != state:
        raise ValueError(
            f"{output} holds files of {found['records']}, split {found['split']!r}, as it was "
            "then; choose another --output, or remove the folder"
        )
    write_text(path, json.dumps(state, indent=1) + "\n")


def _give_up(index: int, troubles: tuple[str, ...]) -> Any:
    raise EngineError(f"record {index} cannot be written: {'; '.join(troubles)}")


def _one_or_all(captions: list[str]) -> str | list[str]:
    return captions[0] if len(captions) == 1 else captions


class _Exporter:
    """Writes the files of single records; one a process."""

    def __init__(self, source: Path, split: str, output: Path) -> None:
        self._records = records.open_records(source, split)
        self._output = output

    def __call__(self, index: int) -> dict[str, Any]:
        """Writes what is missing of record `index`; returns its line of the manifest."""
        record = self._records[index]
        video = self._output / f"{record.id}{SHORT}.mp4"
        pair = Pair.of_video(video)
        if not (pair.mask.exists() and pair.graph.exists()):
            pair.write(*record.trajectories.to_official())
        if not video.exists():
            write_video(video, record.frames, fps=_FPS, crf=_QUALITY)
        line: dict[str, Any] = {
            "id": record.id,
            "path": video.relative_to(self._output).as_posix(),
            "captions": list(record.captions),
            "frame_times": record.trajectories.frame_times.tolist(),
        }
        if record.label is not None:
            line["label"] = record.label
        if (boxes := record.boxes) is not None:
            line["boxes"] = [
                {"time": float(time), "box": corners.tolist(), "label": label}
                for corners, time, label in zip(
                    boxes.corners, boxes.times, boxes.labels, strict=True
                )
            ]
        return {**record.extra, **line}


def define_flags() -> None:
    """Defines the command's flags; not at import, where they would clash with other commands."""
    flags.DEFINE_string("records", None, "Folder of the dataset of records.", required=True)
    flags.DEFINE_string("output", None, "Folder of the files.", required=True)
    command.refuse_empty("records", "output")
    flags.DEFINE_string("split", "train", "Of the dataset.")
    flags.DEFINE_integer("workers", None, "Processes; by default one a CPU core.", 1)


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}", exit_codes.ASKED_WRONG)
    flag = flags.FLAGS
    if not flag["verbosity"].present:  # TFDS tells of every split that it opens
        absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        engine = LocalEngine(flag.workers)
        count = export_official(flag.records, flag.output, split=flag.split, engine=engine)
    except KeyboardInterrupt as interrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return interrupts.exit_code(interrupt)
    except (ValueError, OSError, EngineError) as error:
        return exit_codes.tell(error)
    print(f"{count} videos: {Path(flag.output) / 'annotations.json'}, manifest.jsonl beside it")
    return 0


if __name__ == "__main__":
    command.start(define_flags, main)

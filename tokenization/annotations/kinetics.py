"""Kinetics-400, -600 and -700: the csv files of DeepMind and of activitynet/ActivityNet.

Columns label, youtube_id, time_start, time_end, split and, in some, is_cc; test files may lack
label. Clips are found as the crawler of activitynet/ActivityNet names them, ID_000017_000027.mp4
(six digits of seconds), in the media folder, or below it in SPLIT, LABEL or SPLIT/LABEL (with
spaces or underscores); ID.mp4 is taken as the whole video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import Malformed
from tokenization.annotations.reading import LABELS, Dataset, Option
from tokenization.annotations.sources import ClassNames
from tokenization.manifest import Entry

_LIKE = "abseiling,0wR5jVB-WPk,417,427,val"


def read(
    files: Sequence[Path], media: Media, *, labels: Path | None = None, split: str | None = None
) -> Iterator[Entry | Malformed]:
    """Clips with their label; ids are ID_START_END, six digits each.

    Args:
      files: csv files of one version of the dataset.
      media: folder of the clips, or of the whole videos.
      labels: the class names, one a line in the order of their indices.
      split: train, val (or validate) or test; None = all in the files.

    Raises:
      AnnotationError: a file that is not such a csv.
    """
    classes = ClassNames(labels)
    folders: dict[tuple[str, str], list[str]] = {}

    def convert(row: dict[str, str]) -> list[Entry]:
        if not reading.select(row, "split", split):
            return []
        kind = _field(row, "split"), _field(row, "label")
        if kind not in folders:
            folders[kind] = _folders(*kind, media)
        return [_clip(row, media, folders[kind], classes)]

    for file in files:
        rows = sources.csv_rows(file, needs=("youtube_id", "time_start", "time_end"))
        yield from reading.entries(file, rows, convert, like=_LIKE)


def _field(row: dict[str, str], name: str) -> str:
    return (reading.optional(row, name) or "").strip()


def _folders(split: str, label: str, media: Media) -> list[str]:
    """Where clips may lie: the media folder, and those below it that there are."""
    names = dict.fromkeys(name for name in (label, label.replace(" ", "_")) if name)
    below = [*names, *(f"{split}/{name}" for name in names if split), split]
    return ["", *(f"{name}/" for name in below if name and media.holds_files(name))]


def _clip(row: dict[str, str], media: Media, folders: list[str], classes: ClassNames) -> Entry:
    video = reading.text(row, "youtube_id")
    times = reading.span(row["time_start"], row["time_end"])
    name = f"{video}_{round(times[0]):06d}_{round(times[1]):06d}"
    cut, whole = ([folder + stem for folder in folders] for stem in (name, video))
    place = reading.cut_or_whole(media, cut, whole, times)
    split = _field(row, "split")
    extra: dict[str, object] = {"split": split} if split else {}
    if not _field(row, "label"):
        return Entry(name, *place, extra=extra)
    label = reading.text(row, "label")
    return Entry(name, *place, label=label, extra={**extra, **classes.extra(label)})


KINETICS = Dataset(
    "kinetics",
    "Kinetics-400, -600 or -700 clips and their class",
    read,
    "--annotations=kinetics-400_val.csv --labels=label_map_k400.txt --media=k400 "
    "--output=k400_val.jsonl",
    (LABELS, Option("split", "train, val or test, as the column says; else all.")),
)

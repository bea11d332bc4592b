"""Panda-70M: https://github.com/snap-research/Panda-70M, folder dataset_dataloading.

Two inputs. The published csv has a row for each source video; its columns `timestamp`, `caption`,
`matching_score`, `desirable_filtering` and `shot_boundary_detection` are lists written as text,
one value a clip, times as "H:M:S.mmm" or seconds. Each clip becomes an entry of the whole video
`VIDEOID.mp4` with start and end, or, where there is one, of the cut clip `VIDEOID_00003.mp4`.

Without a csv, the folder that the dataset's own downloader wrote is read: SHARD/KEY_CLIP.mp4
with its caption in .txt beside it. The csv itself was not at hand: its columns are those that the
README and the downloader name, `videoID` is from the README's layout alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import pairs, reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import ItemError, Malformed, shown
from tokenization.annotations.reading import Dataset
from tokenization.manifest import Entry

_TIME = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)")
_LIKE = "ID,https://...,\"[['0:00:11.011', '0:00:15.015']]\",\"['A dog runs.']\""
_KEPT = ("matching_score", "desirable_filtering")  # of the lists of values, one a clip


def read(files: Sequence[Path], media: Media) -> Iterator[Entry | Malformed]:
    """Clips of the csv, or of the downloader's folder where no csv is given.

    Raises:
      AnnotationError: a file that is not such a csv, or a folder without clips.
    """
    if not files:
        yield from pairs.read_folder(media, pairs.VIDEOS)
    for file in files:
        rows = sources.csv_rows(file, needs=("videoID", "timestamp", "caption"))
        yield from reading.entries(file, rows, lambda row: _clips(row, media), like=_LIKE)


def _clips(row: dict[str, str], media: Media) -> Iterator[Entry]:
    video = reading.text(row, "videoID")
    times = sources.literal(row["timestamp"], "timestamp")
    texts = sources.literal(row["caption"], "caption")
    kept = {name: sources.literal(row[name], name) for name in _KEPT if reading.optional(row, name)}
    for name, values in {"caption": texts, **kept}.items():
        if len(values) != len(times):
            raise ItemError(f"it has {len(times)} timestamps and {len(values)} of {name!r}")
    for clip, (time, text) in enumerate(zip(times, texts, strict=True)):
        start, end = (_seconds(value) for value in reading.pair(time, "each timestamp"))
        name = f"{video}_{clip:05d}"
        path, start, end = reading.cut_or_whole(media, (name,), (video,), reading.span(start, end))
        extra: dict[str, object] = {key: values[clip] for key, values in kept.items()}
        yield Entry(name, path, start, end, reading.captions(text), extra={"video": video, **extra})


def _seconds(value: Any) -> float:
    if not isinstance(value, str):
        return reading.number(value, "each time")
    match = _TIME.fullmatch(value.strip())
    if match is None:
        raise ItemError(f"the time {shown(value)} is not like '0:00:11.011'")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)


PANDA70M = Dataset(
    "panda70m",
    "Panda-70M clips and captions, from its csv or from its downloader's folder",
    read,
    "--annotations=panda70m_training_2m.csv --media=videos --output=panda2m.jsonl",
    needs_files=False,
)

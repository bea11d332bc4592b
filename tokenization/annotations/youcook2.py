"""YouCook2: http://youcook2.eecs.umich.edu (youcookii_annotations_trainval.json).

{"database": {"9GX8f5EwwE4": {"duration": 241.6, "subset": "validation", "recipe_type": "212",
"annotations": [{"segment": [25, 37], "id": 0, "sentence": "cut the onion"}], "video_url": ...}}};
videos lie in SUBSET/RECIPE_TYPE/ID.mp4. A second form, a list or JSON lines, has a row a segment:
youtube_id, segment, sentence, recipe_type, video_path, id (as lmms-eval's copy on Hugging Face).
Neither file was at hand: the keys are those of the dataset's page and of public loaders.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_LIKE = '"ID": {"subset": "training", "annotations": [{"segment": [25, 37], "sentence": "..."}]}'
_LIKE_ROW = '{"youtube_id": "ID", "segment": [25, 37], "sentence": "cut the onion"}'


def read(
    files: Sequence[Path], media: Media, *, per: str = "segment", split: str | None = None
) -> Iterator[Entry | Malformed]:
    """Clips with a sentence each, or videos with a paragraph; ids of clips are ID_0, ID_1, ...

    Args:
      files: in either form.
      media: folder of the videos (raw_videos, or one of all of them).
      per: segment or video.
      split: of the first form: training or validation; None = both.

    Raises:
      AnnotationError: a file of neither form.
    """
    for file in files:
        if file.suffix.lower() == ".jsonl":
            reading.no_splits(file, split)
            yield from _rows(file, _json_lines(file), media, per)
            continue
        found = sources.read_json(file)
        if isinstance(found, list):
            reading.no_splits(file, split)
            yield from _rows(file, sources.json_list(file, found), media, per)
            continue
        database = found.get("database") if isinstance(found, dict) else None
        convert = functools.partial(_video, media=media, per=per, split=split)
        videos = sources.json_object(file, database)
        yield from reading.entries(file, videos, convert, like=_LIKE)


def _json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    for where, line in sources.lines(file):
        try:
            yield where, json.loads(line)
        except ValueError as error:
            yield where, ItemError(f"is no JSON: {error}")


def _rows(
    file: Path, rows: Iterator[tuple[str, Any]], media: Media, per: str
) -> Iterator[Entry | Malformed]:
    videos: dict[str, tuple[Path, list[Any]]] = {}

    def collect(row: Any) -> list[Entry]:
        video = reading.text(row, "youtube_id")
        _segment(row)
        path, recipe = (reading.optional(row, key) for key in ("video_path", "recipe_type"))
        names = [path] if isinstance(path, str) else []
        names += [] if recipe is None else [f"{recipe}/{video}"]
        videos.setdefault(video, (media.path(*names, video), []))[1].append(row)
        return []

    yield from reading.entries(file, rows, collect, like=_LIKE_ROW)
    for video, (path, segments) in videos.items():
        yield from _entries(video, path, segments, {}, per)


def _segment(item: Any) -> tuple[tuple[str, ...], tuple[float, float]]:
    times = reading.pair(reading.value(item, "segment"), "the segment")
    return reading.captions(reading.value(item, "sentence")), reading.span(*times)


def _video(video: tuple[str, Any], *, media: Media, per: str, split: str | None) -> Iterator[Entry]:
    name, item = video
    if not reading.select(item, "subset", split):
        return
    subset, recipe = reading.text(item, "subset"), reading.text(item, "recipe_type")
    path = media.path(f"{subset}/{recipe}/{name}", f"{recipe}/{name}", f"{subset}/{name}", name)
    extra: dict[str, object] = {"split": subset, "recipe_type": recipe}
    yield from _entries(name, path, reading.items(item, "annotations"), extra, per)


def _entries(
    video: str, path: Path, items: Sequence[Any], extra: dict[str, object], per: str
) -> Iterator[Entry]:
    segments = [_segment(item) for item in items]
    if per == "video":
        captions = reading.paragraph(text for texts, _ in segments for text in texts)
        yield Entry(video, path, captions=captions, extra=extra)
        return
    for number, (captions, (start, end)) in enumerate(segments):
        more = {"video": video, **extra}
        yield Entry(f"{video}_{number}", path, start, end, captions, extra=more)


YOUCOOK2 = Dataset(
    "youcook2",
    "YouCook2: a clip a sentence, or a paragraph a video",
    read,
    "--annotations=youcookii_annotations_trainval.json --split=validation --media=raw_videos "
    "--output=val.jsonl",
    (
        Option(
            "per",
            "segment: a clip a sentence (default); video: all sentences as one caption.",
            choices=("segment", "video"),
            default="segment",
        ),
        Option("split", "training or validation; else both."),
    ),
)

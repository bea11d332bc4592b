"""DiDeMo: https://github.com/LisaAnne/LocalizingMoments ({train,val,test}_data.json).

A list of {"annotation_id": 1, "video": "26292851@N04_4253489686_265c3c8051.m4v", "num_segments": 6,
"description": "...", "times": [[4, 4], [4, 4], [0, 0]], "dl_link": ...}: each of the times is one
person's choice of 5-second segments, first and last. A few videos occur under two suffixes, some
under none (`a.` and `a.mp4`): a video is what is before the dot, as in the dataset's own code.
Retrieval protocols join the descriptions of a video to one paragraph; here in the order of the
file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_SEGMENT = 5.0  # seconds
_LIKE = '{"annotation_id": 1, "video": "a.m4v", "description": "a dog runs", "times": [[4, 4]]}'


def read(files: Sequence[Path], media: Media, *, per: str = "video") -> Iterator[Entry | Malformed]:
    """Videos with a paragraph, or clips with a description.

    Args:
      files: any of the three.
      media: folder of the videos, named as annotated, in any suffix.
      per: video, or moment: the seconds that most people chose (the earliest of equals); then
        ids are the annotation_id.

    Raises:
      AnnotationError: a file that is no list.
    """
    videos: dict[str, tuple[Path, list[str]]] = {}

    def convert(item: Any) -> list[Entry]:
        video = reading.text(item, "video")
        stem = video.split(".")[0]
        path = media.path(video, stem)
        (caption,) = reading.captions(reading.text(item, "description"))
        start, end = _moment(item)
        if per == "video":
            videos.setdefault(stem, (path, []))[1].append(caption)
            return []
        name = reading.text(item, "annotation_id")
        return [Entry(name, path, start, end, (caption,), extra={"video": stem})]

    for file in files:
        items = sources.json_list(file, sources.read_json(file))
        yield from reading.entries(file, items, convert, like=_LIKE)
    for video, (path, captions) in videos.items():
        yield Entry(video, path, captions=reading.paragraph(captions))


def _moment(item: Any) -> tuple[float, float]:
    pairs = [reading.pair(time, "each of the times") for time in reading.items(item, "times")]
    times = Counter((reading.index(a, "a time"), reading.index(b, "a time")) for a, b in pairs)
    if not times:
        raise ItemError("it has no times")
    first, last = min(times, key=lambda time: (-times[time], time))
    return reading.span(first * _SEGMENT, (last + 1) * _SEGMENT)


DIDEMO = Dataset(
    "didemo",
    "DiDeMo: a paragraph a video, or a clip a description",
    read,
    "--annotations=test_data.json --media=didemo/videos --output=didemo/test.jsonl",
    (
        Option(
            "per",
            "video: all descriptions as one caption (default); moment: a clip a description.",
            choices=("video", "moment"),
            default="video",
        ),
    ),
)

"""ActivityNet Captions: https://cs.stanford.edu/people/ranjaykrishna/densevid/ (captions.zip).

train.json, val_1.json and val_2.json hold
{"v_uqiMw7tQ1Cc": {"duration": 55.15, "timestamps": [[0.28, 55.15], ...], "sentences": [...]}}.
val_1 and val_2 are two people's descriptions of (almost) the same videos; retrieval protocols
use val_1 and join the sentences of a video, in the order of time, to one paragraph.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_LIKE = '"v_ID": {"duration": 55.2, "timestamps": [[0.3, 55.2]], "sentences": ["A dog runs."]}'


def read(files: Sequence[Path], media: Media, *, per: str = "video") -> Iterator[Entry | Malformed]:
    """Videos with a paragraph for each file that describes them, or clips with a sentence each.

    Args:
      files: any of the three.
      media: folder of v_ID.mp4 (or ID.mp4).
      per: video, or event: then ids are v_ID_0, v_ID_1, ..., through all files.

    Raises:
      AnnotationError: a file that is not one of the dataset's.
    """
    events: dict[str, int] = {}
    paragraphs: dict[str, Entry] = {}
    for file in files:
        videos = sources.json_object(file, sources.read_json(file))
        if per == "event":
            convert = functools.partial(_events, media=media, numbers=events)
        else:
            convert = functools.partial(_paragraph, media=media, known=paragraphs)
        yield from reading.entries(file, videos, convert, like=_LIKE)
    yield from paragraphs.values()


def _sentences(name: str, item: Any) -> tuple[list[str], list[tuple[float, float]]]:
    if "/" in name:
        raise ItemError(f"{name!r} is no name of a video")
    sentences = reading.items(item, "sentences")
    times = [reading.pair(time, "each timestamp") for time in reading.items(item, "timestamps")]
    if len(times) != len(sentences):
        raise ItemError(f"it has {len(times)} timestamps and {len(sentences)} sentences")
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise ItemError("its sentences must be texts")
    return sentences, [reading.span(*time) for time in times]


def _path(name: str, media: Media) -> Path:
    return media.path(name, name.removeprefix("v_"))


def _paragraph(video: tuple[str, Any], *, media: Media, known: dict[str, Entry]) -> list[Entry]:
    name, item = video
    sentences, times = _sentences(name, item)
    # In the order of time, as the events are told; of equal starts as in the file.
    order = sorted(range(len(times)), key=lambda place: times[place][0])
    caption = reading.paragraph(sentences[place] for place in order)
    before = known[name].captions if name in known else ()
    known[name] = Entry(name, _path(name, media), captions=before + caption)
    return []


def _events(video: tuple[str, Any], *, media: Media, numbers: dict[str, int]) -> Iterator[Entry]:
    name, item = video
    path = _path(name, media)
    for sentence, (start, end) in zip(*_sentences(name, item), strict=True):
        number = numbers.get(name, 0)
        numbers[name] = number + 1
        caption = reading.captions(sentence)
        yield Entry(f"{name}_{number}", path, start, end, caption, extra={"video": name})


ACTIVITYNET = Dataset(
    "activitynet",
    "ActivityNet Captions: a paragraph a video, or a clip an event",
    read,
    "--annotations=val_1.json --media=ActivityNet/videos --output=ActivityNet/val_1.jsonl",
    (
        Option(
            "per",
            "video: all sentences of a video as one caption (default); event: a clip a sentence.",
            choices=("video", "event"),
            default="video",
        ),
    ),
)

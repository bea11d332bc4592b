"""ActivityNet Captions: https://cs.stanford.edu/people/ranjaykrishna/densevid/ (captions.zip).

train.json, val_1.json and val_2.json hold
{"v_uqiMw7tQ1Cc": {"duration": 55.15, "timestamps": [[0.28, 55.15], ...], "sentences": [...]}}.
val_1 and val_2 are two people's descriptions of (almost) the same videos; retrieval protocols
use val_1 and join the sentences of a video, in the order of time, to one paragraph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
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
            convert = functools.partial(_event, media=media)
            yield from reading.entries(file, _events(videos, events), convert, like=_LIKE)
        else:
            convert = functools.partial(_paragraph, media=media, known=paragraphs)
            yield from reading.entries(file, videos, convert, like=_LIKE)
    yield from paragraphs.values()


def _sentences(name: str, item: Any) -> tuple[list[str], list[tuple[Any, Any]]]:
    if "/" in name:
        raise ItemError(f"{name!r} is no name of a video")
    sentences = reading.items(item, "sentences")
    times = [reading.pair(time, "each timestamp") for time in reading.items(item, "timestamps")]
    if len(times) != len(sentences):
        raise ItemError(f"it has {len(times)} timestamps and {len(sentences)} sentences")
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise ItemError("its sentences must be texts")
    return sentences, times


def _path(name: str, media: Media) -> Path:
    return media.path(name, name.removeprefix("v_"))


def _paragraph(video: tuple[str, Any], *, media: Media, known: dict[str, Entry]) -> list[Entry]:
    name, item = video
    sentences, times = _sentences(name, item)
    # In the order of time, as the events are told; of equal starts as in the file. An end before
    # its start is no matter here.
    starts = [reading.number(start, "start") for start, _ in times]
    order = sorted(range(len(times)), key=starts.__getitem__)
    caption = reading.paragraph(sentences[place] for place in order)
    before = known[name].captions if name in known else ()
    known[name] = Entry(name, _path(name, media), captions=before + caption)
    return []


@dataclasses.dataclass(frozen=True)
class _Event:
    """A sentence about a part of a video.

    Attributes:
      video: its name.
      number: of the event, through all files; one that gives no entry has a number, too.
      sentence: as in the file.
      times: start and end, as in the file.
    """

    video: str
    number: int
    sentence: str
    times: tuple[Any, Any]


def _events(
    videos: Iterable[tuple[str, tuple[str, Any]]], numbers: dict[str, int]
) -> Iterator[tuple[str, _Event | ItemError]]:
    """The events of videos, or what is wrong with a video as a whole."""
    for where, (name, item) in videos:
        try:
            sentences, times = _sentences(name, item)
        except ItemError as error:
            yield where, error
            continue
        for place, (sentence, time) in enumerate(zip(sentences, times, strict=True)):
            number = numbers.get(name, 0)
            numbers[name] = number + 1
            yield f"{where}, sentence {place}", _Event(name, number, sentence, time)


def _event(event: _Event, *, media: Media) -> list[Entry]:
    name, (start, end) = event.video, reading.span(*event.times)
    caption, extra = reading.captions(event.sentence), {"video": name}
    return [Entry(f"{name}_{event.number}", _path(name, media), start, end, caption, extra=extra)]


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

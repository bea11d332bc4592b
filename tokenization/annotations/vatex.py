"""VATEX: https://eric-xw.github.io/vatex-website (vatex_training_v1.0.json and others).

A list of {"videoID": "<YouTube id>_<start>_<end>", "enCap": [10 captions], "chCap": [10, Chinese]},
start and end being six digits of seconds. A file named by the videoID is taken as the cut clip,
one named by the YouTube id as the whole video. The file was not at hand: the schema is that of
the dataset's card and of public loaders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_NAME = re.compile(r"(.+)_(\d+)_(\d+)")
_LIKE = '{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["A dog runs."]}'


def read(
    files: Sequence[Path], media: Media, *, language: str = "en"
) -> Iterator[Entry | Malformed]:
    """Clips with all their captions.

    Args:
      files: any of the dataset's json files.
      media: folder of the clips, or of the whole videos.
      language: en or ch.

    Raises:
      AnnotationError: a file that is no list.
    """
    for file in files:
        items = sources.json_list(file, sources.read_json(file))
        yield from reading.entries(
            file, items, lambda item: [_clip(item, media, f"{language}Cap")], like=_LIKE
        )


def _clip(item: Any, media: Media, key: str) -> Entry:
    name = reading.text(item, "videoID")
    match = _NAME.fullmatch(name)
    if match is None:
        raise ItemError(f"the videoID {name!r} is not <YouTube id>_<start>_<end>")
    video, start, end = match.groups()
    place = reading.cut_or_whole(media, (name,), (video,), reading.span(start, end))
    return Entry(name, *place, captions=reading.captions(reading.value(item, key)))


VATEX = Dataset(
    "vatex",
    "VATEX captions, English or Chinese",
    read,
    "--annotations=vatex_public_test_english_v1.1.json --media=VATEX/clips "
    "--output=VATEX/test.jsonl",
    (
        Option(
            "language", "en (default) or ch: of the captions.", choices=("en", "ch"), default="en"
        ),
    ),
)

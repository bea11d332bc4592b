"""Something-Something v2: https://developer.qualcomm.com/software/ai-datasets/something-something.

something-something-v2-{train,validation}.json are lists of {"id": "78687",
"label": "holding potato next to vicks vaporub bottle", "template": "Holding [something] next to
[something]", "placeholders": ["potato", "vicks vaporub bottle"]}; the test file has only ids. The
class is the template without brackets, something-something-v2-labels.json gives its index:
{"Approaching something with your camera": "0", ...}. The files were not at hand: the keys are
those that public loaders (mmaction2 and others) read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.annotations.sources import ClassNames
from tokenization.manifest import Entry

_LIKE = '{"id": "78687", "template": "Holding [something]", "label": "holding potato"}'


def read(
    files: Sequence[Path], media: Media, *, labels: Path | None = None
) -> Iterator[Entry | Malformed]:
    """Videos with their class, and their own sentence as caption.

    Args:
      files: the train, validation or test json.
      media: folder of ID.webm.
      labels: the labels json, or a list of the classes, one a line.

    Raises:
      AnnotationError: a file that is no list.
    """
    classes = ClassNames(labels)
    for file in files:
        items = sources.json_list(file, sources.read_json(file))
        yield from reading.entries(
            file, items, lambda item: [_video(item, media, classes)], like=_LIKE
        )


def _video(item: Any, media: Media, classes: ClassNames) -> Entry:
    name = reading.text(item, "id")
    path = media.path(name, suffix=".webm")
    if reading.optional(item, "template") is None:
        return Entry(name, path)
    label = reading.text(item, "template").replace("[", "").replace("]", "")
    sentence = reading.optional(item, "label")
    captions = () if sentence is None else reading.captions(sentence)
    return Entry(name, path, captions=captions, label=label, extra=classes.extra(label))


SSV2 = Dataset(
    "ssv2",
    "Something-Something v2 videos, their class and sentence",
    read,
    "--annotations=something-something-v2-validation.json "
    "--labels=something-something-v2-labels.json --media=20bn-something-something-v2 "
    "--output=val.jsonl",
    (
        Option(
            "labels", "something-something-v2-labels.json, or a list of classes, one a line.", Path
        ),
    ),
)

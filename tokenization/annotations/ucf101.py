"""UCF-101: https://www.crcv.ucf.edu/data/UCF101.php (UCF101TrainTestSplits-RecognitionTask.zip).

trainlist01.txt has lines "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", testlist01.txt the path
alone; classInd.txt has "1 ApplyEyeMakeup", counting from 1. The label's index here is from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_LINE = re.compile(r"(\w+)/(\S+)\.avi(?: (\d+))?")
_LIKE = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"


def read(
    files: Sequence[Path], media: Media, *, labels: Path | None = None
) -> Iterator[Entry | Malformed]:
    """Videos with their class.

    Args:
      files: train or test lists.
      media: folder of the videos, in folders of their classes or all in one.
      labels: classInd.txt.

    Raises:
      AnnotationError: a file that cannot be read.
    """
    indices = None if labels is None else _indices(labels)
    for file in files:
        yield from reading.entries(
            file, sources.lines(file), lambda line: [_video(line, media, indices)], like=_LIKE
        )


def _indices(file: Path) -> dict[str, int]:
    indices = {}
    for where, line in sources.lines(file):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or int(number) < 1 or not name:
            raise AnnotationError(f"{file} {where}: {line!r} is not like '1 ApplyEyeMakeup'")
        indices[name] = int(number) - 1
    return indices


def _video(line: str, media: Media, indices: dict[str, int] | None) -> Entry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ItemError(f"{line!r} is no path of a video")
    label, name, number = match.groups()
    path = media.path(f"{label}/{name}.avi", f"{name}.avi")
    if indices is None:
        return Entry(name, path, label=label)
    if label not in indices:
        raise ItemError(f"the class {label!r} is not in --labels")
    if number is not None and int(number) - 1 != indices[label]:
        raise ItemError(f"it has class {number}, but {label!r} is {indices[label] + 1} in --labels")
    return Entry(name, path, label=label, extra={"label_index": indices[label]})


UCF101 = Dataset(
    "ucf101",
    "UCF-101 videos and their class",
    read,
    "--annotations=testlist01.txt --labels=classInd.txt --media=UCF-101 --output=test01.jsonl",
    (Option("labels", "classInd.txt: gives each class its index (from 0).", Path),),
)

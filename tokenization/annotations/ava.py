"""AVA actions: https://research.google.com/ava (v2.1 and v2.2).

ava_{train,val}_v2.2.csv have no header; a row is a person's action in one key frame:
video, second in the YouTube video, x1, y1, x2, y2 (parts of width and height), action, person:
"-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1". The actions are named by a .pbtxt, as
`item { name: ".." id: 1 }` (the 60 that are evaluated) or `label { name: ".." label_id: 1 ... }`
(all 80). ava_*_excluded_timestamps_*.csv lists "video,second" that are neither trained nor
evaluated on; their rows are left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError, Malformed, shown
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_ACTION = re.compile(r'(?:item|label)\s*\{\s*name:\s*"([^"]*)"\s*(?:label_)?id:\s*(\d+)')
_LIKE = "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1"

Box = dict[str, object]
_Boxes = dict[str, dict[float, list[Box]]]  # by video and second


def read(
    files: Sequence[Path],
    media: Media,
    *,
    labels: Path | None = None,
    excluded: Path | None = None,
    per: str = "video",
    window: float = 3.0,
    offset: float = 0.0,
) -> Iterator[Entry | Malformed]:
    """Videos, or clips around each key frame, with `boxes`, sorted by time.

    A box has time (seconds in the file), box (x0, y0, x1, y1), label (the action's name, or its
    number without `labels`), label_index (the action's number, from 1, as annotated) and person
    (-1 if none). A person with three actions has three boxes.

    Args:
      files: the csv files.
      media: folder of the videos, in any of the suffixes they come in.
      labels: the .pbtxt; actions that it does not have are left out.
      excluded: a list of excluded seconds.
      per: video, or keyframe: then ids are VIDEO_0902.
      window: seconds of a clip, the key frame in the middle; the paper labels 3.
      offset: seconds that were cut off the start of the videos, for example 900.

    Raises:
      AnnotationError: a file that cannot be read.
    """
    names = None if labels is None else _actions(labels)
    skipped = set() if excluded is None else _excluded(excluded)
    videos: _Boxes = defaultdict(lambda: defaultdict(list))

    def collect(row: list[str]) -> list[Entry]:
        video, second, box = _box(row, names, offset)
        if (video, second) not in skipped and (names is None or box["label_index"] in names):
            videos[video][second].append(box)
        return []

    for file in files:
        yield from reading.entries(file, sources.plain_rows(file), collect, like=_LIKE)
    for video, seconds in videos.items():
        path = media.path(video)
        if per == "video":
            boxes = [box for second in sorted(seconds) for box in seconds[second]]
            yield Entry(video, path, extra={"boxes": boxes})
            continue
        for second, found in sorted(seconds.items()):
            start = max(0.0, second - offset - window / 2)
            end = second - offset + window / 2
            extra: dict[str, object] = {"video": video, "second": second, "boxes": found}
            yield Entry(f"{video}_{second:04g}", path, start, end, extra=extra)


def _box(row: list[str], names: dict[int, str] | None, offset: float) -> tuple[str, float, Box]:
    if len(row) not in (7, 8) or not row[0].strip():
        raise ItemError(f"it has {len(row)} fields, not video, second, box, action and person")
    second = reading.number(row[1], "the second")
    if second < offset:
        raise ItemError(f"second {row[1]} is before the --offset {offset:g}")
    x0, y0, x1, y1 = corners = [reading.number(part, "a corner") for part in row[2:6]]
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise ItemError(f"the box {shown(corners)} is not within 0 and 1, or empty")
    action = reading.index(row[6], "the action")
    person = reading.index(row[7], "the person") if len(row) == 8 else -1
    return (
        row[0].strip(),
        second,
        {
            "time": second - offset,
            "box": corners,
            "label": str(action) if names is None else names.get(action, ""),
            "label_index": action,
            "person": person,
        },
    )


def _actions(file: Path) -> dict[int, str]:
    content = " ".join(line for _, line in sources.lines(file))
    names = {int(number): name for name, number in _ACTION.findall(content)}
    if not names or len(names) != len(re.findall(r"\b(?:item|label)\s*\{", content)):
        raise AnnotationError(f'{file} is no list of `item {{ name: ".." id: 1 }}`; see --labels')
    return names


def _excluded(file: Path) -> set[tuple[str, float]]:
    seconds = set()
    for where, row in sources.plain_rows(file):
        try:
            if isinstance(row, ItemError):
                raise row
            if len(row) != 2:
                raise ItemError(f"it has {len(row)} fields, not video and second")
            seconds.add((row[0].strip(), reading.number(row[1], "the second")))
        except ItemError as error:
            raise AnnotationError(f"{file} {where}: {error}; correct --excluded") from error
    return seconds


def positive(text: str) -> float:
    """Reads a number above 0.

    Raises:
      ValueError: it is none.
    """
    result = float(text)
    if not 0 < result < float("inf"):
        raise ValueError(f"{text} is not above 0")
    return result


AVA = Dataset(
    "ava",
    "AVA v2.1 and v2.2: boxes of people's actions, a video or a key frame an entry",
    read,
    "--annotations=ava_val_v2.2.csv --labels=ava_action_list_v2.2_for_activitynet_2019.pbtxt "
    "--excluded=ava_val_excluded_timestamps_v2.2.csv --per=keyframe --media=ava --output=val.jsonl",
    (
        Option("labels", "The .pbtxt of the actions; others are left out.", Path),
        Option("excluded", "List of video,second to leave out.", Path),
        Option(
            "per",
            "video: all boxes of a video (default); keyframe: a clip a second with boxes.",
            choices=("video", "keyframe"),
            default="video",
        ),
        Option("window", "Seconds of a key frame's clip (default: 3).", positive, default=3.0),
        Option("offset", "Seconds cut off the videos' start, e.g. 900.", float, default=0.0),
    ),
)

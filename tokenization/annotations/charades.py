"""Charades: https://prior.allenai.org/projects/charades, and Charades-STA (Gao et al., 2017).

Charades_v1_{train,test}.csv have the columns id, subject, scene, quality, relevance, verified,
script, objects, descriptions, actions, length; descriptions are separated by ";", actions are
"c092 11.90 21.20;c147 0.00 12.60": class, start and end in seconds. Charades_v1_classes.txt has
lines "c000 Holding some clothes". The csv was not at hand: the columns are those of the dataset's
README and of public loaders. A second form is VSLNet's charades.json:
{"7UPGT": {"subset": "training", "duration": 23.2, "actions": [[149, 16.0, 22.2], ...]}}.

Charades-STA's charades_sta_{train,test}.txt have lines "3MSZA 24.3 30.4##person turn a light on.".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_ACTION = re.compile(r"c(\d{3}) ([\d.]+) ([\d.]+)")
_CLASS = re.compile(r"c(\d{3}) (.+)")
_MOMENT = re.compile(r"(\S+) ([\d.]+) ([\d.]+) ?##(.*)")
_LIKE = 'a row of Charades_v1_test.csv, its actions "c092 11.90 21.20;c147 0.00 12.60"'
_LIKE_JSON = '"7UPGT": {"subset": "training", "actions": [[149, 16.0, 22.2]]}'
_LIKE_STA = "3MSZA 24.3 30.4##person turn a light on."


def read(
    files: Sequence[Path], media: Media, *, labels: Path | None = None, split: str | None = None
) -> Iterator[Entry | Malformed]:
    """Videos with their descriptions as captions, and all their actions.

    An entry has `label_indices` (the classes that occur, sorted), `labels` (their names, where
    `labels` is given) and `actions`, each with label_index, start and end. Times of actions are
    as annotated: a few end before they start or after the video.

    Args:
      files: the csv files, or charades.json.
      media: folder of ID.mp4.
      labels: Charades_v1_classes.txt.
      split: of charades.json: training or testing; None = both.

    Raises:
      AnnotationError: a file of neither form.
    """
    names = {} if labels is None else _classes(labels)
    for file in files:
        if file.suffix.lower() == ".json":
            convert = functools.partial(_video, media=media, names=names, split=split)
            videos = sources.json_object(file, sources.read_json(file))
            yield from reading.entries(file, videos, convert, like=_LIKE_JSON)
        else:
            reading.no_splits(file, split)
            convert = functools.partial(_row, media=media, names=names)
            rows = sources.csv_rows(file, needs=("id", "descriptions", "actions"))
            yield from reading.entries(file, rows, convert, like=_LIKE)


def _classes(file: Path) -> dict[int, str]:
    names = {}
    for where, line in sources.lines(file):
        match = _CLASS.fullmatch(line)
        if match is None:
            raise AnnotationError(f"{file} {where}: {line!r} is not like 'c000 Holding clothes'")
        names[int(match[1])] = match[2]
    return names


def _row(row: dict[str, str], *, media: Media, names: dict[int, str]) -> list[Entry]:
    video = reading.text(row, "id")
    actions = []
    for written in filter(None, (part.strip() for part in row["actions"].split(";"))):
        match = _ACTION.fullmatch(written)
        if match is None:
            raise ItemError(f"the action {written!r} is not like 'c092 11.90 21.20'")
        actions.append(match.groups())
    described = [text for text in row["descriptions"].split(";") if text.strip()]
    captions = reading.captions(described) if described else ()
    extra = _actions(actions, names)
    if (reading.optional(row, "script") or "").strip():
        extra["script"] = " ".join(row["script"].split())
    return [Entry(video, media.path(video), captions=captions, extra=extra)]


def _video(
    video: tuple[str, Any], *, media: Media, names: dict[int, str], split: str | None
) -> list[Entry]:
    name, item = video
    if not reading.select(item, "subset", split):
        return []
    actions = reading.items(item, "actions")
    if not all(isinstance(action, list) and len(action) == 3 for action in actions):
        raise ItemError("each action must be [class, start, end]")
    return [Entry(name, media.path(name), extra=_actions(actions, names))]


def _actions(actions: Sequence[Sequence[Any]], names: dict[int, str]) -> dict[str, object]:
    rows = []
    for number, start, end in actions:
        label = reading.index(number, "the class of an action")
        if names and label not in names:
            raise ItemError(f"the class {label} is not in --labels")
        times = {
            "start": reading.number(start, "start of an action"),
            "end": reading.number(end, "end of an action"),
        }
        rows.append({"label_index": label, **times})
    indices = sorted({row["label_index"] for row in rows})
    extra: dict[str, object] = {"label_indices": indices, "actions": rows}
    if names:
        extra["labels"] = [names[index] for index in indices]
    return extra


def read_sta(files: Sequence[Path], media: Media) -> Iterator[Entry | Malformed]:
    """Clips of Charades-STA; sentences about the same seconds of a video are one clip's captions.

    Ids are VIDEO_START_END.

    Raises:
      AnnotationError: a file that cannot be read.
    """
    clips: dict[str, Entry] = {}

    def collect(line: str) -> list[Entry]:
        match = _MOMENT.fullmatch(line)
        if match is None:
            raise ItemError(f"{line!r} is no sentence with its times")
        video, start, end, sentence = match.groups()
        times = reading.span(start, end)
        name = f"{video}_{start}_{end}"
        before = clips[name].captions if name in clips else ()
        caption = reading.captions(sentence)
        path = media.path(video)
        clips[name] = Entry(name, path, *times, before + caption, extra={"video": video})
        return []

    for file in files:
        yield from reading.entries(file, sources.lines(file), collect, like=_LIKE_STA)
    yield from clips.values()


CHARADES = Dataset(
    "charades",
    "Charades descriptions and actions (several labels a video, with times)",
    read,
    "--annotations=Charades_v1_test.csv --labels=Charades_v1_classes.txt "
    "--media=Charades_v1_480 --output=test.jsonl",
    (
        Option("labels", "Charades_v1_classes.txt: gives the actions their names.", Path),
        Option("split", "training or testing, of a charades.json; else both."),
    ),
)
CHARADES_STA = Dataset(
    "charades-sta",
    "Charades-STA: a clip for each described moment",
    read_sta,
    "--annotations=charades_sta_test.txt --media=Charades_v1_480 --output=sta_test.jsonl",
)

"""MSR-VTT and MSVD: captions of whole clips.

Four forms, told apart by what is in the file:
  a list of {"video": "video7020.mp4", "caption": "..."}: the 1k-A split as RAIVNLab/trajvit has it
    (data/metadata/msrvtt_test.json); with a list of captions, the MSR-VTT and MSVD test sets of
    snap-research/Panda-70M (captioning/test_datasets/anno_downstream);
  MSRVTT_JSFUSION_test.csv (1k-A): key, vid_key, video_id, sentence, separated by , or ;
  {"videos": [{"video_id", "split"}], "sentences": [{"video_id", "caption"}]}: the dataset's own
    train_val_videodatainfo.json and test_videodatainfo.json, also known as MSRVTT_data.json.
The last form was not at hand: its keys are those that public loaders (CLIP4Clip) read.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_LIKE = '{"video": "video7020.mp4", "caption": "a dog runs"}'
_LIKE_ROW = "ret0;msr9770;video9770;a dog runs"
_LIKE_SENTENCE = '{"video_id": "video0", "caption": "a dog runs"}'


def read(
    files: Sequence[Path], media: Media, *, split: str | None = None
) -> Iterator[Entry | Malformed]:
    """Clips with all their captions.

    Args:
      files: in any of the forms above.
      media: folder of videoN.mp4.
      split: of the videodatainfo form: train, validate or test; None = all.

    Raises:
      AnnotationError: a file of no such form.
    """
    for file in files:
        if file.suffix.lower() == ".csv":
            reading.no_splits(file, split)
            rows = sources.csv_rows(file, needs=("video_id", "sentence"), delimiters=",;")
            yield from reading.entries(file, rows, lambda row: [_row(row, media)], like=_LIKE_ROW)
            continue
        found = sources.read_json(file)
        if isinstance(found, dict):
            yield from _videodatainfo(file, found, media, split)
        else:
            reading.no_splits(file, split)
            items = sources.json_list(file, found)
            yield from reading.entries(file, items, lambda item: [_item(item, media)], like=_LIKE)


def _item(item: Any, media: Media) -> Entry:
    path = media.path(reading.text(item, "video"))
    return Entry(path.stem, path, captions=reading.captions(reading.value(item, "caption")))


def _row(row: dict[str, str], media: Media) -> Entry:
    name = reading.text(row, "video_id")
    return Entry(name, media.path(name), captions=reading.captions(row["sentence"]))


def _videodatainfo(
    file: Path, found: dict[str, Any], media: Media, split: str | None
) -> Iterator[Entry | Malformed]:
    captions: dict[str, list[Any]] = {}
    known = set()
    for _, item in sources.json_list(file, found, "videos"):
        with contextlib.suppress(ItemError):  # told of below
            known.add(reading.text(item, "video_id"))

    def collect(item: Any) -> list[Entry]:
        name = reading.text(item, "video_id")
        if name not in known:
            raise ItemError(f"{name!r} is not among the file's videos")
        captions.setdefault(name, []).append(reading.value(item, "caption"))
        return []

    sentences = ((f"sentence {w}", item) for w, item in sources.json_list(file, found, "sentences"))
    yield from reading.entries(file, sentences, collect, like=_LIKE_SENTENCE)
    convert = functools.partial(_video, media=media, split=split, captions=captions)
    videos = sources.json_list(file, found, "videos")
    yield from reading.entries(file, videos, convert, like='{"video_id": "video0", "split": ...}')


def _video(
    item: Any, *, media: Media, split: str | None, captions: dict[str, list[Any]]
) -> list[Entry]:
    name = reading.text(item, "video_id")
    if not reading.select(item, "split", split):
        return []
    found = reading.captions(captions.get(name, []))
    own = reading.optional(item, "split")
    extra = {} if own is None else {"split": own}
    return [Entry(name, media.path(name), captions=found, extra=extra)]


MSRVTT = Dataset(
    "msrvtt",
    "MSR-VTT captions: 1k-A (json or JSFUSION csv), full test set, videodatainfo json",
    read,
    "--annotations=MSRVTT_JSFUSION_test.csv --media=MSRVTT/videos --output=MSRVTT/test.jsonl",
    (Option("split", "train, validate or test, of a videodatainfo json; else all."),),
)
MSVD = Dataset(
    "msvd",
    "MSVD captions: a json list of video and captions",
    read,
    "--annotations=msvd_caption_test.json --media=MSVD/videos --output=MSVD/test.jsonl",
)

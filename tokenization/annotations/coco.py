"""COCO captions: https://cocodataset.org (captions_train2017.json and others).

{"images": [{"id": 391895, "file_name": "000000391895.jpg", ...}], "annotations": [{"image_id":
391895, "id": 770337, "caption": "..."}], ...}. A second form is Karpathy's split for retrieval
(https://cs.stanford.edu/people/karpathy/deepimagesent, dataset_coco.json and
dataset_flickr30k.json): {"images": [{"filepath": "val2014", "filename":
"COCO_val2014_000000391895.jpg", "sentences": [{"raw": "..."}], "split": "test"}]}. No file was at
hand: the keys are those of the dataset's page and of public loaders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_LIKE = '{"id": 391895, "file_name": "000000391895.jpg"} with captions'
_LIKE_CAPTION = '{"image_id": 391895, "caption": "A dog runs."}'
_LIKE_KARPATHY = '{"filename": "a.jpg", "sentences": [{"raw": "A dog runs."}], "split": "test"}'


def read(
    files: Sequence[Path], media: Media, *, split: str | None = None
) -> Iterator[Entry | Malformed]:
    """Images with all their captions; the id is the file's name without its suffix.

    Args:
      files: in either form.
      media: folder of the images, or the one above train2017, val2014 and so on.
      split: of Karpathy's form: train, restval, val or test; None = all.

    Raises:
      AnnotationError: a file of neither form.
    """
    for file in files:
        found = sources.read_json(file)
        images = sources.json_list(file, found, "images")
        if "annotations" not in found:
            yield from reading.entries(
                file, images, lambda item: _karpathy(item, media, split), like=_LIKE_KARPATHY
            )
            continue
        reading.no_splits(file, split)
        yield from _coco(file, found, images, media)


def _coco(
    file: Path, found: dict[str, Any], images: Iterator[tuple[str, Any]], media: Media
) -> Iterator[Entry | Malformed]:
    captions: dict[str, list[str]] = defaultdict(list)

    def collect(item: Any) -> list[Entry]:
        captions[reading.text(item, "image_id")] += reading.captions(reading.value(item, "caption"))
        return []

    folder = file.stem.removeprefix("captions_")

    def image(item: Any) -> list[Entry]:
        number, name = reading.text(item, "id"), reading.text(item, "file_name")
        path = media.path(name, f"{folder}/{name}", suffix=".jpg")
        texts = captions.pop(number, [])
        extra: dict[str, object] = {"image_id": item["id"]}
        return [Entry(Path(name).stem, path, captions=reading.captions(texts), extra=extra)]

    annotations = (
        (where.replace("item", "annotation"), item)
        for where, item in sources.json_list(file, found, "annotations")
    )
    yield from reading.entries(file, annotations, collect, like=_LIKE_CAPTION)
    yield from reading.entries(file, images, image, like=_LIKE)
    for number in captions:
        reason = "it has captions, but is not among the images (or twice)"
        yield Malformed(file, f"image {number}", reason, "download the file again")


def _karpathy(item: Any, media: Media, split: str | None) -> list[Entry]:
    if not reading.select(item, "split", split):
        return []
    name = reading.text(item, "filename")
    names = [name]
    if reading.optional(item, "filepath"):
        names.insert(0, f"{reading.text(item, 'filepath')}/{name}")
    sentences = [reading.value(each, "raw") for each in reading.items(item, "sentences")]
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise ItemError("its sentences must be texts")
    path = media.path(*names, suffix=".jpg")
    extra: dict[str, object] = {"split": reading.text(item, "split")}
    return [Entry(Path(name).stem, path, captions=reading.captions(sentences), extra=extra)]


COCO = Dataset(
    "coco",
    "COCO captions, and Karpathy's splits of COCO and Flickr30k",
    read,
    "--annotations=captions_val2017.json --media=coco --output=coco/val2017.jsonl",
    (Option("split", "train, restval, val or test, of Karpathy's json; else all."),),
)

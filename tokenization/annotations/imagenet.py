"""ImageNet (ILSVRC 2012): training folders, and lists of the validation images.

Classes are named by LOC_synset_mapping.txt ("n01440764 tench, Tinca tinca", in the order of the
indices; Kaggle, imagenet-object-localization-challenge) or by imagenet_class_index.json (Keras:
{"0": ["n01440764", "tench"], ...}). Without a list, the images are those in folders named by
synset. Lists are Kaggle's LOC_val_solution.csv (ImageId,PredictionString: "n01751748 111 108 370
293 ...") or Caffe's val.txt ("ILSVRC2012_val_00000001.JPEG 65", index from 0). The devkit's
ILSVRC2012_validation_ground_truth.txt counts classes in another order and is refused. No file was
at hand: the forms are those that public loaders read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError, Malformed
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

_SYNSET = re.compile(r"n\d{8}")
_LIKE = "ILSVRC2012_val_00000001,n01751748 111 108 370 293"
_LIKE_LINE = "ILSVRC2012_val_00000001.JPEG 65"


@dataclasses.dataclass(frozen=True)
class _Class:
    index: int
    synset: str
    name: str


def read(files: Sequence[Path], media: Media, *, labels: Path) -> Iterator[Entry | Malformed]:
    """Images with their class; names may repeat (there are two cranes), synsets do not.

    Args:
      files: a validation list; none: the folders below `media` are the classes.
      media: folder of the images, or of the folders of synsets.
      labels: the classes.

    Raises:
      AnnotationError: a file of another form, or no image in folders.
    """
    classes = _classes(labels)
    by_synset = {each.synset: each for each in classes}
    if not files:
        yield from _folders(media, by_synset)
    for file in files:
        if file.suffix.lower() == ".csv":
            rows = sources.csv_rows(file, needs=("ImageId", "PredictionString"))
            yield from reading.entries(
                file, rows, lambda row: [_solution(row, media, by_synset)], like=_LIKE
            )
        else:
            yield from reading.entries(
                file,
                sources.lines(file),
                lambda line: [_listed(line, media, classes)],
                like=_LIKE_LINE,
            )


def _classes(file: Path) -> list[_Class]:
    found: list[tuple[str, str]] = []
    if file.suffix.lower() == ".json":
        pairs = sources.read_json(file)
        if not isinstance(pairs, dict):
            raise AnnotationError(f"{file} is no object of indices; correct --labels")
        try:
            found = [(synset, name) for synset, name in (pairs[str(i)] for i in range(len(pairs)))]
        except (KeyError, TypeError, ValueError) as error:
            raise AnnotationError(
                f'{file} is not like {{"0": ["n01440764", "tench"]}}; correct --labels'
            ) from error
    else:
        for _, line in sources.lines(file):
            synset, _, name = line.partition(" ")
            found.append((synset, name.strip() or synset))
    bad = next((s for s, _ in found if not isinstance(s, str) or not _SYNSET.fullmatch(s)), None)
    if bad is not None or len({synset for synset, _ in found}) < len(found):
        what = "a synset twice" if bad is None else f"{bad!r}, which is no synset like n01440764"
        raise AnnotationError(f"{file} has {what}; correct --labels")
    return [_Class(index, synset, name) for index, (synset, name) in enumerate(found)]


def _entry(path: Path, found: _Class) -> Entry:
    extra: dict[str, object] = {"label_index": found.index, "synset": found.synset}
    return Entry(path.stem, path, label=found.name, extra=extra)


def _folders(media: Media, by_synset: dict[str, _Class]) -> Iterator[Entry | Malformed]:
    empty = True
    for path in media.files((".jpeg", ".jpg", ".png")):
        empty = False
        if path.parent.name in by_synset:
            yield _entry(path, by_synset[path.parent.name])
        else:
            reason = "its folder is no class of --labels"
            yield Malformed(path, "name", reason, "give --media the folder above the synsets")
    if empty:
        raise AnnotationError(f"{media.folders[0]} has no images; correct --media")


def _solution(row: dict[str, str], media: Media, by_synset: dict[str, _Class]) -> Entry:
    name = reading.text(row, "ImageId")
    synset = reading.text(row, "PredictionString").split()[0]
    if synset not in by_synset:
        raise ItemError(f"the class {synset!r} is not in --labels")
    return _entry(media.path(name, f"{synset}/{name}", suffix=".JPEG"), by_synset[synset])


def _listed(line: str, media: Media, classes: list[_Class]) -> Entry:
    name, _, number = line.partition(" ")
    if not Path(name).suffix:
        raise ItemError(f"{line!r} has no name of an image file with its suffix")
    position = reading.index(number, "the class")
    if position >= len(classes):
        raise ItemError(f"class {position} is not among the {len(classes)} of --labels")
    found = classes[position]
    return _entry(media.path(name, f"{found.synset}/{name}", suffix=".JPEG"), found)


IMAGENET = Dataset(
    "imagenet",
    "ImageNet: folders of synsets, or a list of the validation images",
    read,
    "--annotations=LOC_val_solution.csv --labels=LOC_synset_mapping.txt "
    "--media=ILSVRC/Data/CLS-LOC/val --output=val.jsonl",
    (
        Option(
            "labels",
            "LOC_synset_mapping.txt or imagenet_class_index.json: the classes.",
            Path,
            required=True,
        ),
    ),
    needs_files=False,
)

"""Image-text pairs: DataComp, CC3M, CC12M; and folders of media files with a caption beside each.

img2dataset (https://github.com/rom1504/img2dataset, `--output_format=files`) and video2dataset
write SHARD/KEY.jpg, KEY.txt (the caption) and KEY.json (its metadata, "url" among it). DataComp's
downloader writes the same files into tar shards; they must be unpacked first.

Conceptual Captions itself is a tab-separated file without header: caption and url in CC3M
(https://github.com/google-research-datasets/conceptual-captions), url and caption in CC12M; which
of the two columns is the url is seen in each row. The images are found as img2dataset names
them: row i of a list is in shard i // n, its key is 10^ceil(log10 n) * shard + i % n.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenization.annotations import reading, sources
from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError, Malformed, shown
from tokenization.annotations.reading import Dataset, Option
from tokenization.manifest import Entry

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
VIDEOS = (".mp4", ".webm", ".mkv")
_UNPACK = 'for f in *.tar; do mkdir -p "${f%.tar}" && tar -xf "$f" -C "${f%.tar}"; done'
_LIKE = "a dog runs on grass<TAB>http://... (CC3M), or url first (CC12M)"


def read_folder(media: Media, suffixes: Sequence[str]) -> Iterator[Entry | Malformed]:
    """Files with a caption beside them: KEY.txt, or "caption" in KEY.json.

    Raises:
      AnnotationError: there is none.
    """
    empty = True
    for path in media.files(suffixes):
        empty = False
        try:
            name = media.relative(path)
            yield Entry(name, path, captions=_caption(path))
        except ItemError as error:
            yield Malformed(path, "beside it", str(error), "download it again, or remove it")
    if empty:
        folder = media.folders[0]
        packed = next(media.files((".tar",)), None)
        remedy = "correct --media" if packed is None else f"unpack its shards: {_UNPACK}"
        raise AnnotationError(f"{folder} has no file {' '.join(suffixes)}; {remedy}")


def _caption(path: Path) -> tuple[str, ...]:
    text, metadata = path.with_suffix(".txt"), path.with_suffix(".json")
    try:
        if text.is_file():
            return reading.captions(text.read_text("utf-8"))
        if metadata.is_file():
            return reading.captions(reading.value(json.loads(metadata.read_bytes()), "caption"))
    except ItemError:
        raise
    except (OSError, ValueError) as error:
        raise ItemError(f"its caption cannot be read: {error}") from error
    raise ItemError(f"neither {text.name} nor {metadata.name} is there")


def read_images(files: Sequence[Path], media: Media) -> Iterator[Entry | Malformed]:
    """Images of a folder that img2dataset wrote.

    Raises:
      AnnotationError: there is none, or a file is given.
    """
    if files:
        raise AnnotationError(
            "datacomp has its captions beside the images; leave out --annotations"
        )
    return read_folder(media, IMAGES)


def read_list(
    files: Sequence[Path], media: Media, *, per_shard: int = 10_000
) -> Iterator[Entry | Malformed]:
    """Images of one tab-separated list, as img2dataset downloaded them from it.

    Args:
      files: the list.
      media: img2dataset's folder.
      per_shard: its `number_sample_per_shard`.

    Raises:
      AnnotationError: it cannot be read, or is not one file.
    """
    if len(files) != 1:
        raise AnnotationError("cc reads one list at a time; each has its own shards")
    rows = sources.plain_rows(files[0], delimiters="\t")
    return reading.entries(
        files[0], _numbered(rows), lambda row: [_image(*row, media, per_shard)], like=_LIKE
    )


def _numbered(
    rows: Iterator[tuple[str, list[str] | ItemError]],
) -> Iterator[tuple[str, tuple[int, list[str]] | ItemError]]:
    """Rows with their number, without the header that img2dataset wants added."""
    number = 0
    for where, row in rows:
        if number == 0 and isinstance(row, list) and "url" in row:
            continue
        yield where, row if isinstance(row, ItemError) else (number, row)
        number += 1


def _image(number: int, row: list[str], media: Media, per_shard: int) -> Entry:
    urls = [field for field in row if field.startswith(("http://", "https://"))]
    if len(row) != 2 or len(urls) != 1:
        raise ItemError(f"it has {len(row)} fields, {len(urls)} of them a url")
    caption = row[1] if row[0] == urls[0] else row[0]
    shard, position = divmod(number, per_shard)
    digits = len(str(per_shard - 1))  # ceil(log10(per_shard)), exactly
    key = f"{shard:05d}{position:0{digits}d}"
    path = media.path(f"{shard:05d}/{key}", suffix=".jpg")
    _check_url(path.with_suffix(".json"), urls[0])
    return Entry(key, path, captions=reading.captions(caption), extra={"url": urls[0]})


def _check_url(metadata: Path, url: str) -> None:
    """Raises ItemError where the downloaded image is not the one of this row."""
    try:
        downloaded = json.loads(metadata.read_bytes()).get("url", url)
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        raise ItemError(f"{metadata} cannot be read: {error}") from error
    if downloaded != url:
        raise ItemError(
            f"{metadata.name} is of {shown(downloaded)}, this row of {shown(url)}: the images are "
            "of another list, or of another --per_shard"
        )


def count(text: str) -> int:
    """Reads a whole number from 1.

    Raises:
      ValueError: it is none.
    """
    number = int(text)
    if number < 1:
        raise ValueError(f"{text} is below 1")
    return number


DATACOMP = Dataset(
    "datacomp",
    "DataComp, LAION and others: a folder written by img2dataset, captions beside the images",
    read_images,
    "--media=datacomp --output=datacomp.jsonl",
    needs_files=False,
)
CC = Dataset(
    "cc",
    "CC3M and CC12M: the tab-separated list, images downloaded by img2dataset",
    read_list,
    "--annotations=Train_GCC-training.tsv --media=cc3m --output=cc3m.jsonl",
    (
        Option(
            "per_shard",
            "img2dataset's --number_sample_per_shard (default: 10000).",
            count,
            default=10_000,
        ),
    ),
)

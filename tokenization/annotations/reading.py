"""What readers of annotation files share: their protocol, and what is wrong with an item.

A reader takes annotation files and the folders of the media, and yields a manifest entry for each
video or image, or `Malformed` where an item cannot be understood, and goes on.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError, Malformed, shown
from tokenization.manifest import Entry

_T = TypeVar("_T")
_MAX_SECONDS = 1e9  # what a manifest allows


# Takes annotation files, the media, and options as keyword arguments.
Reader = Callable[..., Iterator[Entry | Malformed]]


@dataclasses.dataclass(frozen=True)
class Option:
    """A keyword argument of a reader, as the command offers it.

    Attributes:
      name: of the argument.
      help: one or two sentences.
      type: reads its text.
      choices: the values it may have; None = any.
      default: its value where it is not given.
      required: whether it must be given.
    """

    name: str
    help: str
    type: Callable[[str], object] = str
    choices: tuple[str, ...] | None = None
    default: object = None
    required: bool = False


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset that the command knows.

    Attributes:
      name: in the command.
      about: a line for the list of datasets.
      read: its reader.
      example: arguments of a typical call, after the name.
      options: of the reader.
      needs_files: whether there are annotation files beside the media.
    """

    name: str
    about: str
    read: Reader
    example: str
    options: tuple[Option, ...] = ()
    needs_files: bool = True


LABELS = Option("labels", "List of the classes, one a line: gives each label its index.", Path)


def entries(
    file: Path,
    items: Iterable[tuple[str, _T | ItemError]],
    convert: Callable[[_T], Iterable[Entry]],
    *,
    like: str,
) -> Iterator[Entry | Malformed]:
    """Converts the items of a file; those that raise `ItemError` become `Malformed`.

    Args:
      file: that the items are from.
      items: where each is in the file, and the item, or why it cannot be read.
      convert: the entries of an item.
      like: an item as it should be.
    """
    for where, item in items:
        try:
            if isinstance(item, ItemError):
                raise item
            yield from list(convert(item))
        except ItemError as error:
            yield Malformed(file, where, str(error), f"each item should be like {like}")


def select(item: Any, key: str, wanted: str | None) -> bool:
    """Whether an item is of the wanted split (None = any).

    Raises:
      ItemError: it names no split, and one is wanted.
    """
    return wanted is None or text(item, key) == wanted


def no_splits(file: Path, wanted: str | None) -> None:
    """Raises AnnotationError if a split is wanted of a file that names none."""
    if wanted is not None:
        raise AnnotationError(f"{file} names no splits; leave out --split")


def value(item: Any, key: str) -> Any:
    """A field of an item.

    Raises:
      ItemError: the item is no object, or has no such field.
    """
    if not isinstance(item, Mapping):
        raise ItemError(f"is {type(item).__name__}, not an object")
    if key not in item:
        near = _near(key, tuple(map(str, item)))
        raise ItemError(f"has no {key!r}{f', but {near!r}' if near else ''}")
    return item[key]


def optional(item: Any, key: str) -> Any:
    """A field that an item may lack; None then.

    Raises:
      ItemError: the item is no object, or has the field under a name that is nearly its.
    """
    if isinstance(item, Mapping) and key not in item and not _near(key, tuple(map(str, item))):
        return None
    return value(item, key)


@functools.lru_cache(maxsize=1024)  # items of a file have the same keys
def _near(key: str, others: tuple[str, ...]) -> str | None:
    """Which of an item's other keys is this one misspelt."""
    small = {other.lower(): other for other in others}
    close = difflib.get_close_matches(key.lower(), small, 1, cutoff=0.82)
    mixed = [other for other in small if sorted(other) == sorted(key.lower())]
    return small[[*mixed, *close][0]] if mixed or close else None


def text(item: Any, key: str) -> str:
    """A field that is text, or a whole number (as ids are), without space around it.

    Raises:
      ItemError: it is missing, empty or something else.
    """
    found = value(item, key)
    if type(found) is int:
        found = str(found)
    if not isinstance(found, str) or not found.strip():
        raise ItemError(f"{key!r} must be a text that is not empty, is {shown(found)}")
    return found.strip()


def items(item: Any, key: str) -> list[Any]:
    """A field that is a list.

    Raises:
      ItemError: it is missing or something else.
    """
    found = value(item, key)
    if not isinstance(found, list):
        raise ItemError(f"{key!r} must be a list, is {shown(found)}")
    return found


def captions(found: object) -> tuple[str, ...]:
    """Captions with single spaces, the empty ones left out.

    Raises:
      ItemError: neither a text nor a list of texts, or all are empty.
    """
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise ItemError(f"its captions must be texts, are {shown(found)}")
    kept = tuple(clean for one in texts if (clean := " ".join(one.split())))
    if not kept:
        raise ItemError("it has no caption")
    return kept


def paragraph(sentences: Iterable[str]) -> tuple[str, ...]:
    """One caption of all sentences.

    Raises:
      ItemError: there is none.
    """
    return captions(" ".join(sentences))


def number(found: object, what: str) -> float:
    """A finite number.

    Raises:
      ItemError: it is none.
    """
    try:
        result = float(found)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        result = math.nan
    if isinstance(found, bool) or not math.isfinite(result):
        raise ItemError(f"{what} must be a number, is {shown(found)}")
    return result


def index(found: object, what: str) -> int:
    """A whole number from 0.

    Raises:
      ItemError: it is none.
    """
    result = number(found, what)
    if result < 0 or result != int(result):
        raise ItemError(f"{what} must be a whole number from 0, is {shown(found)}")
    return int(result)


def span(start: object, end: object) -> tuple[float, float]:
    """Start and end of a clip, in seconds.

    Raises:
      ItemError: not 0 <= start < end.
    """
    first, last = number(start, "start"), number(end, "end")
    if not 0 <= first < last < _MAX_SECONDS:
        raise ItemError(f"start {shown(start)} and end {shown(end)} must be 0 <= start < end")
    return first, last


def pair(found: object, what: str) -> tuple[Any, Any]:
    """Two values.

    Raises:
      ItemError: it is no list of two.
    """
    if not isinstance(found, list | tuple) or len(found) != 2:
        raise ItemError(f"{what} must be [start, end], is {shown(found)}")
    return found[0], found[1]


def cut_or_whole(
    media: Media,
    cut: Sequence[str],
    whole: Sequence[str],
    times: tuple[float, float],
) -> tuple[Path, float | None, float | None]:
    """The file of a clip, and where the clip is in it: nowhere else if it was cut out already.

    Where neither exists, the path is that of the cut clip's first name.

    Args:
      media: the media.
      cut: names of a file that is the clip.
      whole: names of the file that it is from.
      times: start and end in the whole video, in seconds.
    """
    found = media.find(*cut)
    if found is None and (source := media.find(*whole)) is not None:
        return source, *times
    return found or media.path(*cut), None, None

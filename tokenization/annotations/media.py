"""The folders of the media files: which file is meant, and is it there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenization.annotations.problems import ItemError
from tokenization.manifest import VIDEO_SUFFIXES


class Media:
    """Finds media files by the names that annotation files give them.

    A file may have another suffix than annotated, or one more (`a.mov.mp4` for `a.mov`): whoever
    downloads videos often converts them.
    Each folder that is looked into is listed once.

    Attributes:
      folders: searched in this order; absolute, links resolved.
    """

    def __init__(self, *folders: str | os.PathLike[str]) -> None:
        """Raises FileNotFoundError or NotADirectoryError where a folder is none."""
        for folder in folders:
            if not Path(folder).is_dir():
                kind = NotADirectoryError if Path(folder).exists() else FileNotFoundError
                raise kind(f"{folder} is no folder; --media names the folder of the media files")
        self.folders = tuple(Path(folder).resolve() for folder in folders)
        self._roots = [str(folder) for folder in self.folders]
        self._listings: dict[str, dict[str, tuple[str, ...]]] = {}

    def find(self, *names: str) -> Path | None:
        """The first file that exists under one of these names, or None.

        Args:
          names: relative to a media folder, the likeliest first; without a suffix, or with one
            that a file of any other video or image suffix may stand in for.

        Raises:
          ItemError: a name leaves the media folder.
        """
        for name in names:
            below, last = _checked(name)
            stem = _stem(last)
            for folder in self._roots:
                parent = f"{folder}/{below}" if below else folder
                listing = self._listing(parent)
                found = listing.get(stem) or listing.get(last)
                if found is not None:
                    return Path(parent, last if last in found else found[0])
        return None

    def alike(self, name: str) -> Iterator[list[Path]]:
        """All files that `find` may take for a name, folder by folder, without the empty ones.

        Raises:
          ItemError: the name leaves the media folder.
        """
        below, last = _checked(name)
        for folder in self._roots:
            parent = f"{folder}/{below}" if below else folder
            listing = self._listing(parent)
            # A set: a name without a suffix is its own stem.
            found = {*listing.get(_stem(last), ()), *listing.get(last, ())}
            if found:
                yield [Path(parent, one) for one in sorted(found)]

    def holds_files(self, below: str) -> bool:
        """Whether a media folder has video or image files right in its folder `below`.

        Raises:
          ItemError: `below` leaves the media folder.
        """
        _checked(f"{below}/name")
        return any(self._listing(f"{folder}/{below}") for folder in self._roots)

    def path(self, *names: str, suffix: str = ".mp4") -> Path:
        """As `find`; where nothing exists, the path that the first name would have."""
        found = self.find(*names)
        if found is not None:
            return found
        below, last = _checked(names[0])
        return Path(self._roots[0], below, last if _stem(last) != last else last + suffix)

    def files(self, suffixes: Iterable[str]) -> Iterator[Path]:
        """All files with one of these suffixes (lower case), folder by folder, in order of name."""
        wanted = tuple(suffixes)
        for root in self.folders:
            for folder, below, names in os.walk(root):
                below.sort()
                for name in sorted(names):
                    if name.lower().endswith(wanted) and not name.startswith("."):
                        yield Path(folder, name)

    def relative(self, path: Path) -> str:
        """A path that `files` gave, relative to its media folder, without its suffix."""
        root = next(folder for folder in self.folders if path.is_relative_to(folder))
        return path.relative_to(root).with_suffix("").as_posix()

    def _listing(self, folder: str) -> dict[str, tuple[str, ...]]:
        """The names in a folder, by what they are without a media suffix."""
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = {}
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208 (names, of up to millions)
            except (FileNotFoundError, NotADirectoryError):
                names = []
            for name in names:
                stem = _stem(name)
                if stem != name:
                    listing[stem] = (*listing.get(stem, ()), name)
        return listing


def _stem(name: str) -> str:
    """A name without its suffix, if that is one of videos and images, or a bare dot.

    Flickr knew no suffix of some videos: DiDeMo's are annotated and saved as `a.`.
    """
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 (ten times as fast, for each item)
    return stem if suffix.lower() in VIDEO_SUFFIXES or suffix == "." else name


def _checked(name: str) -> tuple[str, str]:
    """Folder (perhaps empty) and name of a file.

    Raises:
      ItemError: the file may lie outside of the media folder.
    """
    below, _, last = name.rpartition("/")
    if name.startswith("/") or "\0" in name or ".." in name.split("/") or not last.strip("."):
        raise ItemError(f"the name {name!r} leaves the media folder")
    return below, last

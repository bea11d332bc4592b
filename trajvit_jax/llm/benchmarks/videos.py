"""Where the videos of questions are, and which are missing."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError
from tokenization.manifest import VIDEO_SUFFIXES
from trajvit_jax.llm.benchmarks.contract import Item


class Videos:
    """The folders of a benchmark's videos, in any arrangement: benchmarks come in several."""

    def __init__(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        """Looks whether they are there.

        Raises:
          AnnotationError: a folder is none.
        """
        for folder in folders:
            if not Path(folder).is_dir():
                raise AnnotationError(f"{folder} is no folder; --videos names that of the videos")
        self._media = Media(*folders)

    def find(self, item: Item) -> Path | None:
        """The video of a question, or None: under one of its names, else wherever it lies.

        Raises:
          AnnotationError: its name leaves the folders, or several files have it.
        """
        try:
            found = self._media.find(*item.videos)
        except ItemError as error:
            raise AnnotationError(f"the question {item.id!r}: {error}") from error
        if found is not None:
            return found
        for name in item.videos:
            files = self._everywhere.get(_stem(name), ())
            if len(files) > 1:
                raise AnnotationError(
                    f"the video {name!r} of the question {item.id!r} may be {files[0]} or "
                    f"{files[1]}; name one folder in --videos, or remove one of them"
                )
            if files:
                return files[0]
        return None

    @functools.cached_property
    def _everywhere(self) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for file in self._media.files(VIDEO_SUFFIXES):
            files.setdefault(_stem(file.name), []).append(file)
        return files


def _stem(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name

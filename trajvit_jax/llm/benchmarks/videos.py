"""Where the videos of questions are, and which are missing."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError
from tokenization.manifest import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from trajvit_jax.llm.benchmarks.contract import Item

# An animation beside a video is a preview, unless the annotation means it.
_ANIMATION = ".gif"
_VIDEOS = VIDEO_SUFFIXES - IMAGE_SUFFIXES - {_ANIMATION}


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

        Images are none, and .gif files only where its name says .gif.

        Raises:
          AnnotationError: its name leaves the folders, or several files have it.
        """
        try:
            for name in item.videos:
                for files in self._media.alike(name):
                    if (found := _chosen(item, name, files)) is not None:
                        return found
        except ItemError as error:
            raise AnnotationError(f"the question {item.id!r}: {error}") from error
        for name in item.videos:
            files = self._everywhere.get(_stem(name), ())
            if (found := _chosen(item, name, files)) is not None:
                return found
        return None

    @functools.cached_property
    def _everywhere(self) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for file in self._media.files({*_VIDEOS, _ANIMATION}):
            files.setdefault(_stem(file.name), []).append(file)
        return files


def _chosen(item: Item, name: str, files: Sequence[Path]) -> Path | None:
    """The video among files that are called so but for their suffixes: as annotated, or the only.

    Raises:
      AnnotationError: several may be meant.
    """
    path = Path(name)
    known = _VIDEOS | ({_ANIMATION} & {path.suffix.lower()})
    videos = [file for file in files if file.suffix.lower() in known]
    videos = [file for file in videos if file.name == path.name] or videos
    if len(videos) > 1:
        raise AnnotationError(
            f"the video {name!r} of the question {item.id!r} may be {videos[0]} or {videos[1]}; "
            "name one folder in --videos, or remove one of them"
        )
    return videos[0] if videos else None


def _stem(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name

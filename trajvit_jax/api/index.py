"""Embedded videos by name: to be searched, saved and read again."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tokenization.files import replacing
from tokenization.records import Quarantined

_UNREADABLE = (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Hit:
    """One video that was found.

    Attributes:
      id: of the video.
      path: its file.
      score: cosine of the two embeddings, -1..1.
    """

    id: str
    path: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Embeddings of many videos.

    Attributes:
      ids: one a video.
      paths: their files.
      embeddings: unit vectors, in the same order.
      checkpoint: hash of the model that made them; only its own texts may be compared with them.
      bad: videos that could not be read, and why.
    """

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    embeddings: Float[np.ndarray, "n p"]
    checkpoint: str
    bad: tuple[Quarantined, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def nearest(self, embedding: Float[np.ndarray, " p"], k: int = 5) -> list[Hit]:
        """The `k` videos that are closest to a unit vector, the closest first; ties in order.

        Raises:
          ValueError: `k` under one, or a vector of another length or that is not finite.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if embedding.shape != self.embeddings.shape[1:] or not np.isfinite(embedding).all():
            raise ValueError(
                f"an embedding of these videos is a finite vector of {self.embeddings.shape[1]} "
                f"numbers, got {list(embedding.shape)}"
            )
        scores = self.embeddings @ embedding
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(self.ids[i], self.paths[i], float(scores[i])) for i in best.tolist()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz of `ids`, `paths`, `embeddings` and `checkpoint`; whole or not at all.

        Raises:
          ValueError: a name that does not end in .npz.
          OSError: it cannot be written.
        """
        if Path(path).suffix != ".npz":
            raise ValueError(f"{os.fspath(path)}: embeddings are written as .npz; name it so")
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                ids=np.array(self.ids, np.str_),
                paths=np.array(self.paths, np.str_),
                embeddings=self.embeddings,
                checkpoint=np.array(self.checkpoint),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """Reads what `save` wrote; never opens a pickle.

        Raises:
          ValueError: another file, or a damaged one.
          OSError: it cannot be opened.
        """
        with Path(path).open("rb") as stream:
            try:
                with np.load(stream, allow_pickle=False) as file:
                    ids, paths = (tuple(map(str, file[name])) for name in ("ids", "paths"))
                    embeddings = np.asarray(file["embeddings"], np.float32)
                    found = cls(ids, paths, embeddings, str(file["checkpoint"]))
                    if embeddings.ndim != 2 or not len(ids) == len(paths) == len(embeddings):
                        raise ValueError("its parts do not belong together")
            except _UNREADABLE as error:
                raise ValueError(
                    f"{os.fspath(path)} is no file of embeddings, or is damaged ({error}); embed "
                    "the videos again"
                ) from error
        return found

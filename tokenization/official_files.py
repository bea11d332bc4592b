"""The released program's files: NAME_mask.npz and NAME_graph.npz beside NAME.mp4.

Source: RAIVNLab/trajvit, `traj_gen/training/pipeline.py` writes them and `entry/dataset` reads
them. The mask is stored as `arr_0` in 8 bits, the graph as `tensor` in 64. The frames that they
belong to lie in NAME_short.mp4, or are sampled from NAME.mp4 again.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from tokenization.files import replacing
from tokenization.video import VideoError

SHORT = "_short"
"""Behind the name of the copy that holds the sampled frames alone."""

_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, EOFError, OSError)
_UNREADABLE += (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two files of a video.

    Attributes:
      mask: ids of each frame.
      graph: which id each trajectory has in each frame.
    """

    mask: Path
    graph: Path

    @classmethod
    def of_video(cls, video: str | os.PathLike[str], version: str = "") -> Pair:
        """The files beside a video.

        Args:
          video: the video or its `_short` copy.
          version: what the released program was given as --version_ext.
        """
        video = Path(video)
        name = video.stem.removesuffix(SHORT)
        return cls(
            video.with_name(f"{name}_mask{version}.npz"),
            video.with_name(f"{name}_graph{version}.npz"),
        )

    def read(self) -> tuple[Integer[np.ndarray, "t h w"], Int64[np.ndarray, "m t"]]:
        """Mask and graph, see `Trajectories.from_official`; never opens a pickle.

        An image has a mask alone, without the axis of frames; each of its ids is a trajectory.

        Raises:
          VideoError: a file that is missing, damaged or holds something else, or 8-bit masks of
            more than 255 ids.
        """
        mask = _load(self.mask, "arr_0")
        if mask.ndim == 2 and not self.graph.exists():
            return mask[None], np.arange(1, int(mask.max(initial=0)) + 1)[:, None]
        graph = _load(self.graph, "tensor")
        if mask.ndim != 3 or graph.ndim != 2:
            raise VideoError(
                self.mask,
                f"has a mask of shape {list(mask.shape)} and a graph of {list(graph.shape)}; they "
                "must be [t, h, w] and [m, t]",
                "make them again with the released program",
            )
        if graph.shape[1] != len(mask):
            raise VideoError(
                self.mask,
                f"does not fit its graph: the mask has {len(mask)} frames, the graph "
                f"{graph.shape[1]}",
                "make both again with the released program",
            )
        if mask.dtype == np.uint8 and graph.max(initial=0) > 255:
            raise VideoError(
                self.mask,
                f"has {graph.max()} ids in a frame, of which 8 bits hold 255: those above have "
                "become others",
                "extract the video again",
            )
        return mask, graph.astype(np.int64)

    def write(self, mask: Integer[np.ndarray, "t h w"], graph: Integer[np.ndarray, "m t"]) -> None:
        """Writes both, each whole or not at all; masks of more than 255 ids in 32 bits.

        The released program's loader reads these, too.
        """
        narrow = np.uint8 if mask.max(initial=0) <= 255 else np.int32
        with replacing(self.mask) as partial, partial.open("wb") as file:
            np.savez_compressed(file, mask.astype(narrow))
        with replacing(self.graph) as partial, partial.open("wb") as file:
            np.savez_compressed(file, tensor=graph.astype(np.int64))


def _load(path: Path, key: str) -> np.ndarray:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            array = file[key]
    except FileNotFoundError:
        raise VideoError(
            path, f"has no {path.name} beside it", "make it with the released program"
        ) from None
    except _UNREADABLE as error:
        raise VideoError(
            path,
            f"has a {path.name} that cannot be read as {key!r} of an .npz ({error})",
            "make it again with the released program",
        ) from error
    if array.dtype.kind not in "iu":
        raise VideoError(
            path,
            f"has {array.dtype} in {path.name}, not whole numbers",
            "make it again with the released program",
        )
    return array

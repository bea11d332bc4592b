"""What a model may be given: checked before anything is compiled.

Shapes and dtypes are checked always, values only where there are any: inside a compiled
program arrays are tracers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trajvit_jax.models.settings import ModelSettings, TextSettings
from trajvit_jax.models.tokens import Rows


def check_video(video: Any, labels: Any, settings: ModelSettings, rows: Rows | None = None) -> None:
    """Checks pixels [b, t, h, w, 3] against label maps [b, t, y, x] and the model.

    Raises:
      ValueError: as `VideoTextModel.encode_video` says, naming the shapes.
    """
    shapes = f"video {video.dtype}{list(video.shape)}, labels {labels.dtype}{list(labels.shape)}"
    if video.ndim != 5 or video.shape[-1] != 3:
        raise ValueError(f"video must be [videos, frames, height, width, 3], got {shapes}")
    if labels.ndim != 4:
        raise ValueError(f"labels must be [videos, frames, rows, columns], got {shapes}")
    if video.shape[:2] != labels.shape[:2]:
        raise ValueError(f"videos and frames of pixels and labels differ: {shapes}")
    if 0 in video.shape or 0 in labels.shape:
        raise ValueError(f"nothing to read: {shapes}")
    if video.dtype != jnp.uint8 and not jnp.issubdtype(video.dtype, jnp.floating):
        raise ValueError(
            f"pixels must be uint8 (0..255) or floats normalized by ImageNet's statistics: {shapes}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be whole numbers, got {shapes}")
    if settings.name == "trajvit":
        _check_labels(labels, settings, rows, shapes)
        _check_frames(video, settings, shapes)
    else:
        _check_patches(video, settings, rows, shapes)
    if jnp.issubdtype(video.dtype, jnp.floating) and _has_values(video):
        finite = np.asarray(jnp.isfinite(video).all(axis=(2, 3, 4)))
        if not finite.all():
            where = ", ".join(f"video {b} frame {t}" for b, t in np.argwhere(~finite)[:5])
            raise ValueError(f"pixels are not finite in {where}: {shapes}")


def _check_frames(video: Any, settings: ModelSettings, shapes: str) -> None:
    """Most position readers take any number of frames; the MLP's weights are for one."""
    own = settings.trajvit
    fixed = own.position != "none" and own.position_reader == "mlp"
    if fixed and video.shape[1] != settings.frames:
        raise ValueError(f"this model's position MLP reads {settings.frames} frames: {shapes}")


def _check_patches(video: Any, settings: ModelSettings, rows: Rows | None, shapes: str) -> None:
    """Patches have a learned position each, so their number is fixed."""
    side = settings.image_size
    if video.shape[1:4] != (settings.frames, side, side):
        raise ValueError(
            f"{settings.name} reads {settings.frames} frames of {side}x{side} pixels: {shapes}"
        )
    if rows is not None:
        raise ValueError(f"{settings.name} has one video a row; leave `rows` out")


def _check_labels(labels: Any, settings: ModelSettings, rows: Rows | None, shapes: str) -> None:
    highest, what = settings.trajvit.max_trajectories, "max_trajectories"
    if rows is not None:
        if rows.video.shape != rows.query.shape or rows.row.shape != labels.shape[:1]:
            raise ValueError(
                f"rows do not fit the batch: video {list(rows.video.shape)}, query "
                f"{list(rows.query.shape)}, row {list(rows.row.shape)}; {shapes}"
            )
        highest, what = rows.video.shape[1] - 1, "the last slot of a row"
    if not _has_values(labels):
        return
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high > highest:
        raise ValueError(
            f"labels must be within 0..{highest} ({what}), found {low}..{high}: {shapes}; "
            "raise the model's slots or renumber the trajectories"
        )
    if rows is not None:
        _check_rows(rows, labels.shape[0])


def _check_rows(rows: Rows, videos: int) -> None:
    if not all(_has_values(part) for part in (rows.video, rows.query, rows.row)):
        return
    video, query, row = np.asarray(rows.video), np.asarray(rows.query), np.asarray(rows.row)
    if video.min() < 0 or video.max() > videos:
        raise ValueError(
            f"rows.video must be within 0..{videos}, found {video.min()}..{video.max()}"
        )
    starts, _ = np.nonzero((query == 0) & (video > 0))
    owners = video[(query == 0) & (video > 0)]
    if sorted(owners) != list(range(1, videos + 1)):
        raise ValueError(f"each of {videos} videos needs one CLS slot, found {sorted(owners)}")
    wrong = [int(owner) for owner, own in zip(owners, starts, strict=True) if row[owner - 1] != own]
    if wrong:
        raise ValueError(f"rows.row of videos {wrong} is not the row that holds their CLS slot")


def check_text(ids: Any, mask: Any, settings: TextSettings) -> None:
    """Checks token ids [b, l] against their mask and the text encoder.

    Raises:
      ValueError: as `VideoTextModel.embed_text` says.
    """
    shapes = f"ids {ids.dtype}{list(ids.shape)}, mask {mask.dtype}{list(mask.shape)}"
    if not jnp.issubdtype(ids.dtype, jnp.integer) or mask.dtype != jnp.bool_:
        raise ValueError(f"ids must be whole numbers and mask booleans, got {shapes}")
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise ValueError(f"ids and mask must both be [captions, tokens], got {shapes}")
    if ids.shape[1] > settings.positions:
        raise ValueError(f"captions exceed the {settings.positions} positions of BERT: {shapes}")
    if _has_values(ids):
        low, high = int(np.min(ids, initial=0)), int(np.max(ids, initial=0))
        if low < 0 or high >= settings.vocabulary:
            raise ValueError(
                f"token ids must be within 0..{settings.vocabulary - 1}, found {low}..{high}: "
                f"{shapes}; was the text cut by another vocabulary?"
            )


def _has_values(x: Any) -> bool:
    return not isinstance(x, (jax.core.Tracer, jax.ShapeDtypeStruct))

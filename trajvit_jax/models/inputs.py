"""What a model may be given: checked before anything is compiled.

Shapes and dtypes are checked always, values only where there are any: inside a compiled
program arrays are tracers. Values are looked at by NumPy: JAX would make tracers of those that
a compiled function closes over.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trajvit_jax.models.settings import ModelSettings, TextSettings
from trajvit_jax.models.tokens import Rows


def check_video(
    video: Any,
    labels: Any,
    settings: ModelSettings,
    rows: Rows | None = None,
    valid: Any | None = None,
) -> None:
    """Checks pixels [b, t, h, w, 3] against label maps [b, t, y, x] and the model.

    `valid` [b, t] are the frames that count in batch statistics; None = all.

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
    if valid is not None and (valid.dtype != jnp.bool_ or valid.shape != video.shape[:2]):
        raise ValueError(
            f"valid must be bool{list(video.shape[:2])} [videos, frames], got "
            f"{valid.dtype}{list(valid.shape)}: {shapes}"
        )
    if settings.name == "trajvit":
        _check_labels(labels, settings, rows, shapes)
        _check_frames(video, settings, shapes)
    else:
        _check_patches(video, settings, rows, shapes)
    if jnp.issubdtype(video.dtype, jnp.floating) and _has_values(video):
        finite = np.isfinite(np.asarray(video)).all(axis=(2, 3, 4))
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
    """Patches have a learned position each, which only frames may be more or fewer than."""
    side, frames = settings.image_size, video.shape[1]
    # Positions are interpolated over time, not over space.
    step = 1 if settings.name == "automerge" else settings.vit3d.tubelet
    if video.shape[2:4] != (side, side) or frames % step or (settings.name == "vit" and frames > 1):
        some = {"vit": "one frame", "automerge": "frames"}
        what = some.get(settings.name, f"multiples of {step} frames")
        raise ValueError(f"{settings.name} reads {what} of {side}x{side} pixels: {shapes}")
    if rows is not None:
        raise ValueError(f"{settings.name} has one video a row; leave `rows` out")


def _check_labels(labels: Any, settings: ModelSettings, rows: Rows | None, shapes: str) -> None:
    highest, what = settings.trajvit.max_trajectories, "max_trajectories"
    if rows is not None:
        g, v = rows.row.shape
        if (
            rows.video.shape != rows.query.shape
            or rows.video.shape[0] != g
            or g * v != labels.shape[0]
        ):
            raise ValueError(
                f"rows do not fit the batch: video {list(rows.video.shape)}, query "
                f"{list(rows.query.shape)}, row {list(rows.row.shape)}; {shapes}"
            )
        highest, what = rows.video.shape[2] - 1, "the last slot of a row"
    if not _has_values(labels):
        return
    labels = np.asarray(labels)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > highest:
        raise ValueError(
            f"labels must be within 0..{highest} ({what}), found {low}..{high}: {shapes}; "
            "raise the model's slots or renumber the trajectories"
        )
    if rows is not None and all(_has_values(part) for part in (rows.video, rows.query, rows.row)):
        video, query, row = map(np.asarray, (rows.video, rows.query, rows.row))
        _check_rows(video, query, row)
        _check_plan(labels, video, query, row, settings)


def _check_rows(videos_of: np.ndarray, queries_of: np.ndarray, rows_of: np.ndarray) -> None:
    videos = rows_of.shape[1]
    for group, (video, query, row) in enumerate(zip(videos_of, queries_of, rows_of, strict=True)):
        where = f"group {group}: "
        if video.min() < 0 or video.max() > videos:
            raise ValueError(
                f"{where}rows.video must be within 0..{videos}, found {video.min()}..{video.max()}"
            )
        starts, _ = np.nonzero((query == 0) & (video > 0))
        owners = video[(query == 0) & (video > 0)]
        if sorted(owners) != list(range(1, videos + 1)):
            found = sorted(map(int, owners))
            raise ValueError(f"{where}each of {videos} videos needs one CLS slot, found {found}")
        wrong = [int(own) for own, r in zip(owners, starts, strict=True) if row[own - 1] != r]
        if wrong:
            raise ValueError(
                f"{where}rows.row of videos {wrong} is not the row that holds their CLS slot"
            )


def _check_plan(
    labels: np.ndarray,
    videos_of: np.ndarray,
    queries_of: np.ndarray,
    rows_of: np.ndarray,
    settings: ModelSettings,
) -> None:
    """A video's slots follow one another, and its labels name the first ones of trajectories."""
    videos = rows_of.shape[1]
    for index, own in enumerate(labels):
        group, number = index // videos, index % videos + 1
        row = rows_of[group, number - 1]
        video, query = videos_of[group, row], queries_of[group, row]
        where = f"video {index} (number {number} of group {group}, row {row})"
        slots, firsts = (np.flatnonzero((video == number) & kept) for kept in (True, query == 1))
        count = int((videos_of[group] == number).sum())
        if query[slots[0]] != 0 or slots[-1] - slots[0] + 1 != count:
            raise ValueError(
                f"the {count} slots of {where} must be its CLS and after it, without a gap, its "
                f"trajectories; found there: {_listed(slots)}"
            )
        if len(firsts) > settings.trajvit.max_trajectories:
            raise ValueError(
                f"{where} is planned with {len(firsts)} trajectories: drop the smallest, or raise "
                f"max_trajectories={settings.trajvit.max_trajectories}"
            )
        wrong = np.setdiff1d(own, [0, *firsts])
        if wrong.size:
            label = int(wrong[0])
            plan = f"video number {video[label]}, query {query[label]}" if video[label] else "none"
            raise ValueError(
                f"label {label} of {where} is not the first slot of one of its trajectories "
                f"(planned for: {plan}); renumber them to their own slots: {_listed(firsts)}"
            )


def _listed(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:8])) or "none"
    return shown + (", .." if len(numbers) > 8 else "")


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
        ids = np.asarray(ids)
        low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
        if low < 0 or high >= settings.vocabulary:
            raise ValueError(
                f"token ids must be within 0..{settings.vocabulary - 1}, found {low}..{high}: "
                f"{shapes}; was the text cut by another vocabulary?"
            )


def _has_values(x: Any) -> bool:
    return not isinstance(x, (jax.core.Tracer, jax.ShapeDtypeStruct))

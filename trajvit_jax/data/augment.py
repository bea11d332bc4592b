"""Augmentation inside the compiled step: the host only decodes.

One draw a video: all its frames, and its label maps, are changed alike. The order is crop and
resize, flip, colour jitter, grayscale, blur (paper, supplementary §6 and Table 7), each as
torchvision defines it. What a video gets depends on its key alone, see `sample_keys`.

A trajectory may vanish from its labels in a crop; its slot then has no cell.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Integer, Key, Num, UInt32

from trajvit_jax.ops.blur import blur, gaussian_taps
from trajvit_jax.ops.color import grayscale, jitter
from trajvit_jax.ops.crop import Box, crop_labels, crop_pixels

# Sets the keys apart from others that come from the same seed.
_STREAM = 0x61756765
_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class AugmentSettings:
    """What may happen to a training video. Defaults: the paper's (Table 7).

    Attributes:
      crop: whether a crop is taken; else the whole frame is resized.
      crop_scale: lowest and highest share of the frame's area.
      crop_ratio: lowest and highest width / height.
      flip: probability of changing left and right.
      jitter: probability of the colour jitter; the released program's is 0.6.
      brightness: its factor is within 1 - brightness and 1 + brightness, and at least 0.
      contrast: likewise.
      saturation: likewise.
      hue: turns of the colour circle, at most so far to either side.
      grayscale: probability of losing all colour.
      blur: probability of a Gaussian blur.
      blur_taps: pixels a side of its kernel, an odd number.
      blur_sigma: lowest and highest standard deviation in pixels of the model's size.

    Raises:
      ValueError: a value outside its range.
    """

    crop: bool = True
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.5
    blur_taps: int = 5
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur"):
            self._require(name, "a probability within 0..1", lambda p: 0 <= p <= 1)
        for name in ("brightness", "contrast", "saturation"):
            self._require(name, "a number >= 0", lambda strength: 0 <= strength < math.inf)
        self._require("hue", "within 0..0.5 turns", lambda turns: 0 <= turns <= 0.5)
        self._require_range("crop_scale", highest=1.0)
        self._require_range("crop_ratio")
        self._require_range("blur_sigma")
        self._require("blur_taps", "an odd number >= 1", lambda n: n >= 1 and n % 2 == 1)

    def _require(self, name: str, what: str, holds: Any) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not holds(value):
            raise ValueError(f"AugmentSettings.{name} must be {what}, got {value!r}")

    def _require_range(self, name: str, highest: float = math.inf) -> None:
        value = getattr(self, name)
        if len(value) != 2 or not 0 < value[0] <= value[1] <= highest or math.isinf(value[1]):
            limit = "" if math.isinf(highest) else f" and at most {highest:g}"
            raise ValueError(
                f"AugmentSettings.{name} must be (lowest, highest), above 0{limit}, got {value!r}"
            )

    @classmethod
    def none(cls) -> AugmentSettings:
        """Whole frames, resized, and nothing else."""
        return cls(crop=False, flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0)


class Draw(NamedTuple):
    """What one video gets.

    Attributes:
      box: what is cropped, in pixels of the frames.
      flip: whether left and right change places.
      jitter: whether colours are jittered,
      order: in which order,
      factors: and by which factors, see `trajvit_jax.ops.color.jitter`.
      grayscale: whether colour is lost.
      blur: whether frames are blurred,
      sigma: and with which standard deviation.
    """

    box: Box
    flip: Bool[Array, ""]
    jitter: Bool[Array, ""]
    order: Int[Array, " 4"]
    factors: Float[Array, " 4"]
    grayscale: Bool[Array, ""]
    blur: Bool[Array, ""]
    sigma: Float[Array, ""]


def sample_keys(
    seed: int | Int[Array, ""],
    epoch: int | Int[Array, ""] | Int[Array, " b"],
    ids: UInt32[Array, "b 2"],
) -> Key[Array, " b"]:
    """The key of each sample of a batch, from the seed, the epoch and the sample alone.

    Neither its place in the batch nor the batch, process, worker or device plays a part, so a
    resumed run, on other hardware too, draws what an unbroken one would. That takes a generator
    whose numbers do not depend on vmap or sharding: it is always threefry, whatever
    `jax_default_prng_impl` says (rbg draws differently under vmap). Numbers differ between
    `jax_threefry_partitionable` on, JAX's default, and off; off, devices also have to talk to
    draw them. Leave it on for the whole of a run.

    Args:
      seed: of the run.
      epoch: one of the batch, or each sample's own where a batch spans two epochs.
      ids: 64 bits of a hash of each sample's id.
    """
    root = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), _STREAM)
    epochs = jnp.broadcast_to(jnp.asarray(epoch), ids.shape[:1])

    def one(epoch: jax.Array, words: jax.Array) -> jax.Array:
        key = jax.random.fold_in(root, epoch)
        return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])

    return jax.vmap(one)(epochs, ids)


def draw(key: Key[Array, ""], settings: AugmentSettings, *, height: int, width: int) -> Draw:
    """Draws what a video of `height` x `width` pixels gets.

    Each part has a stream of its own: changing one setting leaves the others' draws as they were.
    """
    crop, flip, jitters, order, factors, gray, blurs, sigma = jax.random.split(key, 8)
    strength = jnp.array([settings.brightness, settings.contrast, settings.saturation])
    low = jnp.append(jnp.maximum(1.0 - strength, 0.0), -settings.hue)
    high = jnp.append(1.0 + strength, settings.hue)
    whole = Box(*(jnp.asarray(edge, jnp.int32) for edge in (0, 0, height, width)))
    lowest, highest = settings.blur_sigma
    return Draw(
        box=_draw_box(crop, settings, height, width) if settings.crop else whole,
        flip=_happens(flip, settings.flip),
        jitter=_happens(jitters, settings.jitter),
        order=jax.random.permutation(order, 4),
        factors=jax.random.uniform(factors, (4,), minval=low, maxval=high),
        grayscale=_happens(gray, settings.grayscale),
        blur=_happens(blurs, settings.blur),
        sigma=jax.random.uniform(sigma, minval=lowest, maxval=highest),
    )


def _happens(key: jax.Array, probability: float) -> jax.Array:
    return jax.random.uniform(key) < probability


def _draw_box(key: jax.Array, settings: AugmentSettings, height: int, width: int) -> Box:
    """torchvision's RandomResizedCrop: the first of ten boxes that fits, else a central one.

    A box has a uniform share of the area and a log-uniform ratio, rounded to whole pixels, and
    lies anywhere with equal probability.
    """
    area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
    low, high = settings.crop_scale
    area = height * width * jax.random.uniform(area_key, (_ATTEMPTS,), minval=low, maxval=high)
    low, high = (math.log(ratio) for ratio in settings.crop_ratio)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (_ATTEMPTS,), minval=low, maxval=high))
    widths = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first, found = jnp.argmax(fits), fits.any()

    central_height, central_width = _central(settings.crop_ratio, height, width)
    h = jnp.where(found, heights[first], central_height)
    w = jnp.where(found, widths[first], central_width)
    top = jax.random.randint(top_key, (), 0, height - h + 1)
    left = jax.random.randint(left_key, (), 0, width - w + 1)
    return Box(
        top=jnp.where(found, top, (height - central_height) // 2),
        left=jnp.where(found, left, (width - central_width) // 2),
        height=h,
        width=w,
    )


def _central(ratios: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest box of an allowed ratio nearest to the frame's."""
    ratio = min(max(width / height, ratios[0]), ratios[1])
    if ratio > width / height:
        return max(1, round(width / ratio)), width
    return height, min(width, max(1, round(height * ratio)))


def apply(
    drawn: Draw,
    video: Num[Array, "t h w 3"],
    labels: Integer[Array, "t y x"],
    settings: AugmentSettings,
    *,
    image_size: int,
    grid: int,
) -> tuple[Float32[Array, "t {image_size} {image_size} 3"], Int32[Array, "t {grid} {grid}"]]:
    """Changes one video as drawn; arguments and results as in `augment`."""
    frame = (video.shape[1], video.shape[2])
    cells = crop_labels(labels, drawn.box, frame=frame, size=grid, mirror=drawn.flip)
    x = crop_pixels(video, drawn.box, size=image_size, mirror=drawn.flip)
    # What never happens is not compiled.
    if settings.jitter > 0:
        x = jnp.where(drawn.jitter, jitter(x, drawn.order, drawn.factors), x)
    if settings.grayscale > 0:
        x = jnp.where(drawn.grayscale, grayscale(x), x)
    if settings.blur > 0:
        taps = gaussian_taps(drawn.sigma, settings.blur_taps)
        only_itself = jnp.arange(settings.blur_taps) == settings.blur_taps // 2
        x = blur(x, jnp.where(drawn.blur, taps, only_itself))
    return jnp.moveaxis(x, 0, -1), cells


def augment(
    video: Num[Array, "b t h w 3"],
    labels: Integer[Array, "b t y x"],
    keys: Key[Array, " b"],
    settings: AugmentSettings,
    *,
    image_size: int,
    grid: int,
) -> tuple[Float32[Array, "b t {image_size} {image_size} 3"], Int32[Array, "b t {grid} {grid}"]]:
    """Crops, flips and recolours each video by its own key; for use inside a compiled step.

    With `AugmentSettings.none()` it only resizes. Pixels are then not quite those of
    `trajvit_jax.data.samples`, which averages over areas and rounds to whole grey levels; labels
    are the same. Frames that have the model's size are left exactly as they are.

    Args:
      video: pixels 0..255 at the size they are stored in.
      labels: of the same frames, 0 = none, at any resolution. A label map under `grid` cells
        within a crop is enlarged; 224 cells fill a grid of 56 from a crop of 0.2.
      keys: one a video, see `sample_keys`.
      settings: what may happen.
      image_size: pixels a side that the model reads.
      grid: cells a side of the label maps that it reads.

    Returns:
      Pixels 0..255, not rounded, and labels under the centres of the grid's cells. The model takes
      floats as normalized ones: pass the pixels through `normalize_pixels`.

    Raises:
      ValueError: inputs that do not belong together, a frame too small to blur.
    """
    _check(video, labels, keys, settings, image_size)

    def one(video: Any, labels: Any, key: Any) -> tuple[jax.Array, jax.Array]:
        drawn = draw(key, settings, height=video.shape[1], width=video.shape[2])
        return apply(drawn, video, labels, settings, image_size=image_size, grid=grid)

    return jax.vmap(one)(video, labels, keys)


def _check(video: Any, labels: Any, keys: Any, settings: AugmentSettings, image_size: int) -> None:
    shapes = f"video {list(video.shape)}, labels {list(labels.shape)}, keys {list(keys.shape)}"
    if video.ndim != 5 or video.shape[-1] != 3:
        raise ValueError(f"video must be [videos, frames, height, width, 3], got {shapes}")
    if labels.ndim != 4 or labels.shape[:2] != video.shape[:2]:
        raise ValueError(f"labels must be [videos, frames, rows, columns] as the video: {shapes}")
    if keys.shape != video.shape[:1]:
        raise ValueError(f"each video needs one key, see sample_keys: {shapes}")
    if settings.blur > 0 and image_size <= settings.blur_taps // 2:
        raise ValueError(
            f"frames of {image_size} pixels are too small to blur with {settings.blur_taps} taps; "
            "lower augment.blur_taps or set augment.blur = 0"
        )

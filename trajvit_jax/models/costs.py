"""Tokens and FLOPs of one video, by formula: what the architecture costs, whoever runs it.

A FLOP is a multiplication or an addition. Counted are the products of matrices and convolutions
that depend on the video, not norms, activations, softmax or what XLA makes of them; `flops` has
XLA's count of all of it.
"""

from __future__ import annotations

import dataclasses

from trajvit_jax.models.settings import EncoderSettings, ModelSettings, ResNetSettings
from trajvit_jax.models.video_text import plain_slots
from trajvit_jax.models.video_tokens.position import FEATURES
from trajvit_jax.models.video_tokens.rlt import rlt_slots
from trajvit_jax.models.video_tokens.tome import tokens_by_layer
from trajvit_jax.ops.mask_pooling import cells_are_few

_SAME_THROUGHOUT = ("trajvit", "vit3d", "vit", "rlt", "automerge")


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Slots of one video, CLS included.

    Attributes:
      first: that the first layer reads.
      last: that leave the last.
    """

    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """FLOPs of one video.

    Attributes:
      tokenizer: from pixels to tokens; None = not known by formula.
      transformer: the encoder, and what happens between its layers.
    """

    tokenizer: int | None
    transformer: int

    @property
    def total(self) -> int | None:
        """Both, and nothing else: the projection of one vector is no cost."""
        return None if self.tokenizer is None else self.tokenizer + self.transformer


def tokens_of(settings: ModelSettings) -> Tokens:
    """How many tokens a video has; of TrajViT's and RLT's, which vary, how many at most."""
    first, steps = plain_slots(settings), _steps(settings)
    if settings.name == "tome":
        return Tokens(first, tokens_by_layer(first, settings.encoder.depth, settings.tome)[-1])
    if settings.name == "vivit":
        return Tokens(first, 1 + steps)
    if settings.name == "token_learner" and not settings.token_learner.fuse:
        return Tokens(first, 1 + steps * settings.token_learner.tokens)
    return Tokens(first, first)


def cost_of(settings: ModelSettings) -> Cost:
    """FLOPs of a video with as many tokens as `tokens_of` says."""
    return Cost(_tokenizer(settings), _transformer(settings))


def _steps(settings: ModelSettings) -> int:
    return settings.frames // settings.vit3d.tubelet


def _cells(settings: ModelSettings) -> int:
    return (settings.image_size // settings.vit3d.patch) ** 2


def _attention(encoder: EncoderSettings, tokens: int) -> int:
    inner = encoder.heads * encoder.head_width or encoder.width
    return 8 * tokens * encoder.width * inner + 4 * tokens**2 * inner


def _mlp(encoder: EncoderSettings, tokens: int) -> int:
    return 4 * tokens * encoder.width * encoder.mlp


def _layers(encoder: EncoderSettings, tokens: int, depth: int) -> int:
    return depth * (_attention(encoder, tokens) + _mlp(encoder, tokens))


def _transformer(settings: ModelSettings) -> int:
    encoder, slots = settings.encoder, plain_slots(settings)
    if settings.name == "rlt":
        # A row is read whole, whoever shares it.
        group = settings.rlt.group
        row = rlt_slots(settings, group=group)
        return _layers(encoder, row, encoder.depth) * encoder.passes // group
    if settings.name in _SAME_THROUGHOUT:
        return _layers(encoder, slots, encoder.depth) * encoder.passes
    if settings.name == "tome":
        return _merging(settings)
    steps, cells = _steps(settings), _cells(settings)
    if settings.name == "vivit":
        temporal = settings.vivit.temporal_depth or encoder.depth // 2
        spatial = encoder.depth - temporal
        return steps * _layers(encoder, 1 + cells, spatial) + _layers(encoder, 1 + steps, temporal)
    return _learning(settings)


def _merging(settings: ModelSettings) -> int:
    encoder, before = settings.encoder, plain_slots(settings)
    head = encoder.head_width or encoder.width // encoder.heads
    total = 0
    for after in tokens_by_layer(before, encoder.depth, settings.tome):
        matching = 2 * (before // 2) * (before - before // 2) * head if after < before else 0
        total += _attention(encoder, before) + matching + _mlp(encoder, after)
        before = after
    return total


def _learning(settings: ModelSettings) -> int:
    encoder, own = settings.encoder, settings.token_learner
    patches, learned = plain_slots(settings) - 1, _steps(settings) * own.tokens
    place = round(encoder.depth * own.place)
    later = encoder.depth - place
    weigh = 2 * patches * own.bottleneck * (encoder.width + own.tokens)
    mix = 2 * patches * own.tokens * encoder.width
    once = weigh + mix
    if own.fuse:
        once = later * (2 * once + 2 * learned * own.tokens * encoder.width)
    return _layers(encoder, 1 + patches, place) + _layers(encoder, 1 + learned, later) + once


def _tokenizer(settings: ModelSettings) -> int | None:
    width = settings.encoder.width
    if settings.name not in ("trajvit", "automerge"):
        own = settings.vit3d
        pixels = 3 * own.tubelet * own.patch**2
        return 2 * _steps(settings) * _cells(settings) * pixels * width
    own = settings.trajvit
    if own.backbone != "resnet" or own.appearance != "resampler" or own.pooling != "mean":
        return None
    if own.position != "none" and own.position_reader != "resampler":
        return None
    frames, feature = settings.frames, own.feature_width or width
    backbone = frames * _resnet(own.resnet, settings.image_size)
    # One set of vectors for each trajectory, or all patches of all frames as one.
    sets, vectors = own.max_trajectories, frames
    if settings.name == "automerge":
        sets, vectors = 1, frames * (settings.image_size // settings.automerge.patch) ** 2
    total = backbone + frames * _pooling(settings, sets * vectors // frames, feature)
    total += sets * _reading(settings, vectors, own.resampler.depth)
    if feature != width:
        total += 2 * sets * vectors * feature * width
    if own.position != "none":
        depth = own.position_depth or own.resampler.depth
        total += sets * _reading(settings, vectors, depth)
        widened = depth > 1 or own.resampler.frame_positions == "learned" or not _absorbed(settings)
        if own.position_features == "fourier" and widened:
            total += 2 * sets * vectors * FEATURES * width
    return total


def _queries(settings: ModelSettings) -> int:
    merging = settings.name == "automerge"
    return settings.automerge.tokens if merging else settings.trajvit.resampler.queries


def _absorbed(settings: ModelSettings) -> bool:
    """Whether a resampler's first layer makes no keys and values: `ops.resampler_attention`."""
    return settings.impl == "fast" and _queries(settings) == 1


def _reading(settings: ModelSettings, vectors: int, depth: int) -> int:
    """One resampler over one set of vectors."""
    width, queries = settings.encoder.width, _queries(settings)
    keys = vectors + queries
    layer = 4 * queries * width**2 + 4 * keys * width**2 + 4 * queries * keys * width
    total = depth * layer
    if _absorbed(settings):
        total += 4 * settings.encoder.heads * width * vectors + 4 * width**2 - layer
    if settings.trajvit.resampler.latent_block:
        total += depth * (16 * queries * width**2 + 4 * queries**2 * width)
    return total


def _pooling(settings: ModelSettings, segments: int, feature: int) -> int:
    """Features of one frame under so many masks: see `ops.mask_pooling`."""
    own, total = settings.trajvit, 0
    slots = 1 + segments * (1 if settings.name == "automerge" else own.tokens_each)
    stages = list(enumerate(own.resnet.widths))
    for stage, channels in stages if own.hierarchical else stages[-1:]:
        cells = (settings.grid >> stage) ** 2
        if cells_are_few(cells, channels, feature, span=slots):
            total += 2 * cells * (channels + segments) * feature
            continue
        norms, sums = 2 * cells * channels**2, 2 * segments * cells * channels if stage else 0
        total += norms + sums + 2 * segments * channels * feature
    return total


def _resnet(settings: ResNetSettings, side: int) -> int:
    """Convolutions of one frame."""
    side //= 2
    total, cin = 2 * side**2 * 49 * 3 * settings.stem, settings.stem
    side //= 2
    for stage, (width, depth) in enumerate(zip(settings.widths, settings.depths, strict=True)):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            before, side = side, side // stride
            if settings.block == "basic":
                total += 2 * side**2 * 9 * (cin * width + width * width)
            else:
                narrow = width // 4
                total += 2 * before**2 * cin * narrow
                total += 2 * side**2 * (9 * narrow * narrow + narrow * width)
            if stride != 1 or cin != width:
                total += 2 * side**2 * cin * width
            cin = width
    return total

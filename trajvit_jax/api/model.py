"""A trained model that reads files: embeddings, tokens, pictures, search."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int32, UInt8
from tqdm import tqdm

from tokenization.explore.items import Item
from tokenization.explore.sheet import compose
from tokenization.files import printable
from tokenization.manifest import Entry, read_entries
from tokenization.recorder import ExtractSettings
from tokenization.records import Quarantined
from tokenization.trajectories import Trajectories
from tokenization.video import VideoError
from trajvit_jax.api.index import Hit, Index
from trajvit_jax.api.programs import Programs
from trajvit_jax.api.reading import ONE_VIDEO, Reader, ReadVideo, Video
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals.loaded import hash_of
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel

_LOG = logging.getLogger(__name__)
_TEXTS = 64  # embedded at once


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """All that a model makes of one video.

    Attributes:
      frames: RGB as they were decoded.
      trajectories: of these frames; None for a model that reads patches.
      labels: the token that each cell of the model's grid feeds, 1..n; 0 = none: label i is row
        i - 1 of `tokens`. With q queries a trajectory, it stands for the q from q * (i - 1) on.
      tokens: states behind the last layer.
      token_ids: which trajectory each token is of; empty for a model that reads patches.
      cls: state of the video as a whole.
      embedding: unit vector beside those of texts; None where the weights are of an encoder alone.
      attention: of each layer and head, from slot to slot (CLS, then the tokens); None unless it
        was asked for.
    """

    frames: UInt8[np.ndarray, "t height width 3"]
    trajectories: Trajectories | None
    labels: Int32[np.ndarray, "u y x"]
    tokens: Float[np.ndarray, "n d"]
    token_ids: Int32[np.ndarray, " m"]
    cls: Float[np.ndarray, " d"]
    embedding: Float[np.ndarray, " p"] | None
    attention: Float[np.ndarray, "layers heads s s"] | None = None


class Model:
    """A video-text model, its vocabulary, and the way in which its videos were made.

    Wherever a video is asked for, it may be the path of a video or image file, an `Entry` of a
    manifest (`tokenization.manifest`), or RGB pixels, uint8[t, h, w, 3]. Each shape of a batch is
    compiled once: of one video, and of `batch`.

    Attributes:
      name: where it is from.
      module: the Flax model.
      settings: its sizes.
      text: its vocabulary, or None.
      tokenization: how videos are cut into trajectories.
      card: Markdown on what it learned from and what it can do, or ''.
    """

    def __init__(
        self,
        module: VideoTextModel,
        *,
        name: str,
        text: WordPiece | None = None,
        tokenization: ExtractSettings | None = None,
        card: str = "",
        missing: Sequence[str] = (),
        threads: int | None = None,
        weights: str | None = None,
    ):
        """Use `load`.

        Args:
          module: the Flax model.
          name: for messages.
          text: its vocabulary; None = it reads no texts.
          tokenization: how videos are cut; None = by the built-in tokenizer's defaults.
          card: what is known of it.
          missing: parts of the module that mean nothing, because the weights lack them.
          threads: videos that are read at once; None = one a processor, at most 4.
          weights: of a tokenizer that is a network, see `tokenization.backends.make`.
        """
        self.name, self.module, self.text, self.card = name, module, text, card
        self.settings: ModelSettings = module.settings
        self._reader = Reader(
            module.settings, tokenization or ExtractSettings(), threads=threads, weights=weights
        )
        self.tokenization = self._reader.settings
        self._missing = tuple(missing)

    def __repr__(self) -> str:
        own = self.settings
        return (
            f"<Model {self.name}: {own.name}, {own.frames} frames of {own.image_size}x"
            f"{own.image_size} pixels, embeddings of {own.projection} numbers>"
        )

    @functools.cached_property
    def checkpoint(self) -> str:
        """Hash of all the model's numbers."""
        return hash_of(self.module)

    def embed_video(
        self, videos: Video | Iterable[Video], *, batch: int = 8, progress: bool = True
    ) -> Float[np.ndarray, "*b p"]:
        """Unit vectors of videos or images, float32.

        Args:
          videos: one, which gives a vector [p], or several, which give [b, p].
          batch: videos that the model reads at once.
          progress: a bar, should it take more than five seconds.

        Raises:
          VideoError: a file that cannot be read; it names the file, the reason and the remedy.
            `index` goes on without it.
          ValueError: what is no video, or weights that lack the projection of videos.
        """
        self._check_has("embed videos", "project_video")
        if isinstance(videos, ONE_VIDEO) or not isinstance(videos, Iterable):
            return self._embed_samples([self._reader.read(videos)], 1)[0]
        sources = list(videos)
        found = np.zeros((len(sources), self.settings.projection), np.float32)
        for number, result in self._embed_all(sources, batch, progress):
            if isinstance(result, Exception):
                raise result
            found[number] = result
        return found

    def embed_text(self, texts: str | Iterable[str]) -> Float[np.ndarray, "*b p"]:
        """Unit vectors of texts, float32: [p] of one, [b, p] of several.

        Texts are cut behind `settings.text.length` pieces of words.

        Raises:
          ValueError: a text that is empty or none, a model without a vocabulary, or weights that
            lack the text side.
        """
        self._check_has("embed texts", "text", "project_text")
        if self.text is None:
            raise ValueError(
                f"{self.name} has no vocabulary, and reads no texts without it: "
                "load(..., vocabulary='vocab.txt'), the one that it was trained with"
            )
        given = [texts] if isinstance(texts, str) else list(texts)
        for number, one in enumerate(given):
            if not isinstance(one, str) or not one.strip():
                raise ValueError(f"text {number} must say something, got {one!r}")
        batch = 1 if isinstance(texts, str) else _TEXTS
        parts = [np.zeros((0, self.settings.projection), np.float32)]
        for start in range(0, len(given), batch):
            some = given[start : start + batch]
            tokens = self.text(some + some[-1:] * (batch - len(some)))
            embedded = self._programs.text(tokens.ids, tokens.mask)
            parts.append(embedded[: len(some)])
        found = np.concatenate(parts)
        return found[0] if isinstance(texts, str) else found

    def similarity(
        self, videos: Video | Iterable[Video], texts: str | Iterable[str], *, batch: int = 8
    ) -> Float[np.ndarray, "*s"]:
        """Cosines of videos (rows) and texts (columns): [b, l], [b], [l], or one number.

        Raises:
          VideoError, ValueError: as `embed_video` and `embed_text` do.
        """
        told = self.embed_text(texts)  # what is wrong with texts shows before minutes of videos
        return np.asarray(self.embed_video(videos, batch=batch) @ told.T)

    def index(
        self,
        videos: str | os.PathLike[str] | Iterable[Video],
        *,
        batch: int = 8,
        progress: bool = True,
    ) -> Index:
        """Embeds many videos, to search them. Those that cannot be read are named, and left out.

        Args:
          videos: a folder, a pattern ("clips/**/*.mp4"), a manifest (.jsonl), or a list.
          batch: videos that the model reads at once.
          progress: a bar, should it take more than five seconds.

        Raises:
          ValueError: no video there, or none that can be read.
        """
        self._check_has("embed videos", "project_video")
        listed = isinstance(videos, str | os.PathLike)
        sources = list(read_entries(videos) if listed else videos)
        rows: dict[int, np.ndarray] = {}
        bad: dict[int, Quarantined] = {}
        names = [_named(source, number) for number, source in enumerate(sources)]
        for number, result in self._embed_all(sources, batch, progress):
            if isinstance(result, VideoError):
                bad[number] = Quarantined(*names[number], result.reason, result.remedy)
                _LOG.warning("left out: %s", result)
            elif isinstance(result, Exception):
                raise result
            else:
                rows[number] = result
        if not rows:
            why = f", the first because it {bad[0].reason}" if bad else ""
            raise ValueError(f"none of {len(sources)} videos can be read{why}")
        kept = sorted(rows)
        return Index(
            ids=tuple(names[number][0] for number in kept),
            paths=tuple(names[number][1] for number in kept),
            embeddings=np.stack([rows[number] for number in kept]),
            checkpoint=self.checkpoint,
            bad=tuple(bad[number] for number in sorted(bad)),
        )

    def search(self, text: str, among: Index, k: int = 5) -> list[Hit]:
        """The `k` videos of an index that fit a text best.

        Raises:
          ValueError: an index that another model made, or as `embed_text` and `nearest` do.
        """
        if among.checkpoint != self.checkpoint:
            raise ValueError(
                f"these embeddings were made by another model ({among.checkpoint}) than "
                f"{self.name} ({self.checkpoint}): make them again with model.index(...)"
            )
        return among.nearest(self.embed_text(text), k)

    def tokenize(self, video: Video) -> Trajectories:
        """A video's trajectories: labels uint16[t, h, w], one number a trajectory, 0 = none.

        Raises:
          VideoError: a file that cannot be read.
          ValueError: a model that reads patches.
        """
        return self._cut(video).trajectories

    def picture(
        self, video: Video, *, columns: int = 8, width: int = 240
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A contact sheet: frames, and below them their trajectories, one colour each.

        Args:
          video: a file, or what else is a video.
          columns: frames in a row.
          width: pixels of a frame.

        Raises:
          VideoError, ValueError: as `tokenize` does.
        """
        return compose(self._cut(video), columns=columns, width=width)

    def encode(self, video: Video, *, attention: bool = False) -> Encoded:
        """The tokens of one video, with what they are of; see `Encoded`.

        Args:
          video: a file, or what else is a video.
          attention: keep the encoder's, too: of each layer and head.

        Raises:
          VideoError: a file that cannot be read.
          ValueError: attention of a model whose layers merge tokens.
        """
        read = self._reader.read(video)
        slots = self._programs.encode(read.sample.video, read.sample.labels, attention=attention)
        ids = read.token_ids(self.tokenization.record_size)
        used, seen, labels = slots.used, slots.attention, slots.labels
        if read.trajectories is None:  # slots, of which those between may be empty
            labels = np.searchsorted(used, labels)
        return Encoded(
            frames=read.frames.rgb,
            trajectories=read.trajectories,
            labels=labels.astype(np.int32),
            tokens=slots.states[used[1:]],
            token_ids=np.repeat(ids, self.settings.trajvit.tokens_each),
            cls=slots.cls,
            embedding=None if "project_video" in self._missing else slots.embedding,
            attention=None if seen is None else seen[:, :, used][..., used],
        )

    def _embed_all(
        self, sources: Sequence[Video], batch: int, progress: bool
    ) -> Iterator[tuple[int, np.ndarray | Exception]]:
        """The number of each video with its embedding, or with what is wrong with it."""
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        waiting: dict[int, list[tuple[int, ReadVideo]]] = {}  # by number of frames
        dropped = 0
        with tqdm(
            total=len(sources),
            desc="embed videos",
            unit="video",
            delay=5,
            mininterval=1,
            leave=False,
            disable=not progress,
        ) as bar:
            for number, read in enumerate(self._reader.read_many(sources)):
                if isinstance(read, Exception):
                    bar.update()
                    yield number, read
                    continue
                dropped += read.sample.dropped
                same = waiting.setdefault(len(read.sample.video), [])
                same.append((number, read))
                if len(same) == batch:
                    yield from self._embed_some(same, batch)
                    bar.update(batch)
                    same.clear()
            for same in waiting.values():
                yield from self._embed_some(same, batch)
                bar.update(len(same))
        if dropped:
            _LOG.warning(
                "%d trajectories of %d videos found no slot among %s's %d: the smallest are left "
                "out, as in its training",
                dropped,
                len(sources),
                self.name,
                self.settings.trajvit.max_trajectories,
            )

    def _embed_some(
        self, some: Sequence[tuple[int, ReadVideo]], batch: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        if some:
            rows = self._embed_samples([read for _, read in some], batch)
            yield from zip((number for number, _ in some), rows, strict=True)

    def _embed_samples(self, some: Sequence[ReadVideo], batch: int) -> Float[np.ndarray, "b p"]:
        """Filled up with the last one to `batch`, so that one shape is compiled."""
        full = [*some, *some[-1:] * (batch - len(some))]
        video = np.stack([read.sample.video for read in full])
        labels = np.stack([read.sample.labels for read in full])
        return self._programs.video(video, labels)[: len(some)]

    def _check_has(self, what: str, *parts: str) -> None:
        lacking = [part for part in parts if part in self._missing]
        if lacking:
            raise ValueError(
                f"{self.name} cannot {what}: its weights lack {', '.join(lacking)}. "
                "encode(video) gives its tokens and its state of the whole video"
            )

    def _cut(self, video: Video) -> Item:
        frames = self._reader.decode(video)
        [found] = self._reader.cut([frames])
        if found is None:
            raise ValueError(
                f"{self.name} is a {self.settings.name}, which reads patches and has no "
                "trajectories; encode(video).labels are its tokens"
            )
        return Item(frames.rgb, found)

    @functools.cached_property
    def _programs(self) -> Programs:
        return Programs(self.module)


def _named(source: Video, number: int) -> tuple[str, str]:
    """A video's id and path."""
    if isinstance(source, Entry):
        return source.id, printable(source.path)
    if isinstance(source, np.ndarray):
        return f"pixels{number}", ""
    return os.fspath(source), printable(source)

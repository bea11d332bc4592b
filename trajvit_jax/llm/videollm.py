"""A VideoLLM that answers: files and questions in, text out.

from trajvit_jax.llm import videollm
model = videollm.load("runs/llama3")
model.answer("clip.mp4", "What happens?")
"""

from __future__ import annotations

import collections
import dataclasses
import mimetypes
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trajvit_jax.llm.answering import AnswerSettings, Question
from trajvit_jax.llm.conversation import Conversation, Turn, question
from trajvit_jax.llm.eyes import Seen, slots_of, token_numbers
from trajvit_jax.llm.generation import Generator
from trajvit_jax.llm.saved import Saved, mesh_of
from trajvit_jax.llm.saved import load as load_saved
from trajvit_jax.llm.sequences import Spread, check_length, spread
from trajvit_jax.llm.tokenizer import Encoded
from trajvit_jax.llm.videos import Clip, VideoReader

_PLAIN = AnswerSettings()
_KEPT = 4  # videos whose tokens are remembered: benchmarks ask several times about each


def load(
    folder: str | os.PathLike[str],
    *,
    batch: int = 4,
    devices: int = 1,
    attention: str = "xla",
) -> VideoLLMAnswerer:
    """Loads a model; see `saved.load` for the folders, and it and `saved.mesh_of` for errors.

    Args:
      folder: of the model.
      batch: questions that are answered at once.
      devices: of this host, which share the language model.
      attention: see `LlamaSettings`.
    """
    return VideoLLMAnswerer(load_saved(folder, mesh_of(devices), attention=attention), batch=batch)


class _Span(NamedTuple):
    """What is read of a file; see `Question` and `AnswerSettings`."""

    path: Path
    frames: int
    start: float = 0.0
    stop: float | None = None


class VideoLLMAnswerer:
    """Ours of `answering.VideoAnswerer`.

    Args:
      saved: the model and what belongs to it.
      batch: questions that are answered at once.
    """

    def __init__(self, saved: Saved, *, batch: int = 4):
        from tokenization.recorder import read_settings

        self._saved, self._batch = saved, batch
        video = saved.model.settings.video
        self._reader = VideoReader(video, read_settings(saved.tokenization))
        self._generator = Generator(saved.model, saved.chat.stop, batch=batch)
        self._graph, self._state = nnx.split(saved.model.eyes)
        self._see = jax.jit(
            lambda state, video, labels: nnx.merge(self._graph, state)(video, labels, groups=1)
        )
        self._seen: collections.OrderedDict[_Span, tuple[Seen, int]] = collections.OrderedDict()
        self._dropped: dict[_Span, int] = {}

    @property
    def context(self) -> int:
        """Tokens that a conversation and its answer may have together."""
        return self._saved.model.settings.llm.context

    def answer(
        self,
        video: str | os.PathLike[str],
        question: str,
        settings: AnswerSettings = _PLAIN,
    ) -> str:
        """See `VideoAnswerer.answer`."""
        return self.answer_all([Question(question, (video,))], settings)[0]

    def answer_all(
        self, questions: Sequence[Question], settings: AnswerSettings = _PLAIN
    ) -> list[str]:
        """See `VideoAnswerer.answer_all`."""
        answers = []
        for first in range(0, len(questions), self._batch):
            own = questions[first : first + self._batch]
            talks = [
                question(one.text, tuple(map(os.fspath, one.videos)), id=f"question {first + i}")
                for i, one in enumerate(own)
            ]
            encoded = [self._saved.chat.encode(talk, answer=True) for talk in talks]
            spans = [_spans(one, settings.frames) for one in own]
            for text, videos, talk in zip(encoded, spans, talks, strict=True):
                self._check_known(text, videos, settings, talk.id)
            seen = [[self._look(*one) for one in videos] for videos in spans]
            prompts = [
                self._spread(text, videos, settings, talk.id)
                for text, videos, talk in zip(encoded, seen, talks, strict=True)
            ]
            # By what is asked, wherever in the list it stands.
            seeds = [zlib.crc32(f"{talk.turns} {talk.videos}".encode()) >> 1 for talk in talks]
            found = self._generator.generate(prompts, self._together(seen), settings, seeds=seeds)
            answers += [cut_at(self._saved.chat.decode(ids), settings.stop) for ids in found]
        return answers

    def reply(
        self,
        turns: Sequence[Turn],
        videos: Sequence[str | os.PathLike[str]],
        settings: AnswerSettings = _PLAIN,
    ) -> Iterator[str]:
        """The answer to a conversation's last turn, as far as it is known, again and again.

        Raises: as `answer` does, and `ConversationError` for placeholders that do not fit.
        """
        chat = self._saved.chat
        talk = Conversation("this conversation", tuple(turns), tuple(map(os.fspath, videos)))
        text = chat.encode(talk, answer=True)
        spans = [_Span(Path(path), settings.frames) for path in videos]
        self._check_known(text, spans, settings, talk.id)
        seen = [self._look(*one) for one in spans]
        prompt = self._spread(text, seen, settings, talk.id)
        ids: list[int] = []
        for tokens in self._generator.stream([prompt], self._together([seen]), settings):
            if int(tokens[0]) in chat.stop:
                return
            ids.append(int(tokens[0]))
            text = cut_at(chat.decode(ids), settings.stop)
            yield text
            if settings.stop and text != chat.decode(ids).strip():
                return

    def tokens_of(self, video: str | os.PathLike[str], frames: int = 0) -> int:
        """How many tokens the language model reads of a video."""
        seen, trajectories = self._look(video, frames)
        return len(self._numbers(seen, trajectories))

    def dropped(self, question: Question, settings: AnswerSettings = _PLAIN) -> int:
        """See `CountsDropped.dropped`; 0 for videos that were never looked at."""
        return sum(self._dropped.get(one, 0) for one in _spans(question, settings.frames))

    def _look(
        self,
        path: str | os.PathLike[str],
        frames: int,
        start: float = 0.0,
        stop: float | None = None,
    ) -> tuple[Seen, int]:
        """Tokens of a video, and how many trajectories it has."""
        span = _Span(Path(path), frames, start, stop)
        if span not in self._seen:
            clip = self._reader.read(path, frames=frames, start=start, stop=stop)
            self._seen[span] = self.look(clip), clip.trajectories
            self._dropped[span] = clip.dropped
            while len(self._seen) > max(_KEPT, self._batch):
                self._seen.popitem(last=False)
        self._seen.move_to_end(span)
        return self._seen[span]

    def _check_known(
        self, text: Encoded, videos: Sequence[_Span], settings: AnswerSettings, name: str
    ) -> None:
        """Before a video is read: checks the text, and tokens of videos that are certain."""
        least = sum(self._least(one) for one in videos)
        words = len(text.ids) - text.media + settings.most_tokens
        check_length(
            words + least,
            self.context,
            name=f"{name} with an answer of up to {settings.most_tokens}",
            text=words,
        )

    def _least(self, span: _Span) -> int:
        """Tokens that a video has at least."""
        own = self._saved.model.settings
        is_video = (mimetypes.guess_type(span.path)[0] or "").startswith("video/")
        if own.video.name == "trajvit" or not is_video:
            return int(own.eyes.cls)
        slots = slots_of(dataclasses.replace(own.video, frames=span.frames or own.video.frames))
        return len(token_numbers(own.video, own.eyes, 0, slots))

    def look(self, clip: Clip) -> Seen:
        """The tokens of one clip."""
        return self._see(self._state, jnp.asarray(clip.video[None]), jnp.asarray(clip.labels[None]))

    def _numbers(self, seen: Seen, trajectories: int, start: int = 0) -> np.ndarray:
        model = self._saved.model.settings
        slots = seen.valid.shape[1]
        return token_numbers(model.video, model.eyes, trajectories, slots, start=start)

    def _spread(
        self,
        text: Encoded,
        seen: Sequence[tuple[Seen, int]],
        settings: AnswerSettings,
        name: str,
    ) -> Spread:
        start, media = 0, []
        for one, trajectories in seen:
            media.append(self._numbers(one, trajectories, start))
            start += one.valid.shape[1]
        made = spread(text, media, name=name)
        words = int((made.source < 0).sum())
        check_length(
            len(made) + settings.most_tokens,
            self.context,
            name=f"{name} with an answer of up to {settings.most_tokens}",
            text=words + settings.most_tokens,
        )
        return made

    def _together(self, seen: Sequence[Sequence[tuple[Seen, int]]]) -> Seen | None:
        """The videos of each question as those of a group, filled up to one shape."""
        own = slots_of(self._saved.model.settings.video)
        counts = [sum(one.valid.shape[1] for one, _ in videos) for videos in seen]
        if not any(counts):
            return None
        most = -(-max(counts) // own) * own
        rows = []
        for videos, count in zip(seen, counts, strict=True):
            pad = most - count
            width = self._saved.model.eyes.width
            states = [one.states[0] for one, _ in videos] + [jnp.zeros((pad, width))]
            valid = [one.valid[0] for one, _ in videos] + [jnp.zeros(pad, bool)]
            rows.append((jnp.concatenate(states), jnp.concatenate(valid)))
        rows += [(jnp.zeros_like(rows[0][0]), jnp.zeros_like(rows[0][1]))] * (
            self._batch - len(rows)
        )
        return Seen(jnp.stack([s for s, _ in rows]), jnp.stack([v for _, v in rows]))


def _spans(one: Question, frames: int) -> list[_Span]:
    """Of a question's videos; its seconds are those of the first."""
    return [
        _Span(Path(path), frames, *((one.start, one.stop) if number == 0 else ()))
        for number, path in enumerate(one.videos)
    ]


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stops, without surrounding blanks."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text.strip()

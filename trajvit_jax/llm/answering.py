"""What benchmarks and the terminal ask of a model that answers questions about videos."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from trajvit_jax.config import require_positive


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How a question is answered.

    Attributes:
      frames: that each video is sampled to; an image has one. 0 = as many as the model was
        trained with.
      most_tokens: of the answer.
      temperature: 0 = the likeliest token always.
      top_p: with a temperature: the likeliest tokens whose probability together reaches this.
      stop: texts that end the answer and are no part of it.
      seed: of the random draws; the same one gives the same answer.

    Raises:
      ValueError: a count under 1, or a temperature or `top_p` out of its range.
    """

    frames: int = 0
    most_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "most_tokens")
        if self.frames < 0:
            raise ValueError(f"frames must be at least 0, got {self.frames}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be within 0..1, and not 0, got {self.top_p}")


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of which videos.

    Attributes:
      text: of the question, as the model reads it: choices and instructions of a benchmark are
        part of it.
      videos: files of videos or images, read before the text in this order.
      start: second of the first video from which on it is looked at.
      stop: second up to which; None = its end.
    """

    text: str
    videos: tuple[str | os.PathLike[str], ...] = ()
    start: float = 0.0
    stop: float | None = None


@runtime_checkable
class VideoAnswerer(Protocol):
    """A model that answers questions about videos; see `videollm.load` for ours."""

    def answer(
        self,
        video: str | os.PathLike[str],
        question: str,
        settings: AnswerSettings = AnswerSettings(),
    ) -> str:
        """The answer to one question about one video, without surrounding blanks.

        Raises:
          ValueError: a question and video longer than the model's context.
          OSError: a video that cannot be read (or `tokenization.video.VideoError`).
        """
        ...

    def answer_all(
        self, questions: Sequence[Question], settings: AnswerSettings = AnswerSettings()
    ) -> list[str]:
        """One answer a question, in their order, computed in batches; raises as `answer` does."""
        ...


@runtime_checkable
class CountsDropped(Protocol):
    """An answerer that also tells what of its videos the model does not read."""

    def dropped(self, question: Question, settings: AnswerSettings = AnswerSettings()) -> int:
        """Trajectories for which the model has no place, of a question that was just answered."""
        ...

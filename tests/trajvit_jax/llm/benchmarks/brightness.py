"""A model that needs no weights: it says which of two clips is which from their pixels."""

from __future__ import annotations

from tokenization.video import decode


class Brightness:
    """Answers "A" about a clip that gets brighter, "B" about one that gets darker."""

    def answer_all(self, questions, settings):
        return [self._one(question, settings) for question in questions]

    def answer(self, video, question, settings):
        return self._look(video, settings)

    def _one(self, question, settings):
        (video,) = question.videos
        return self._look(video, settings)

    def _look(self, video, settings):
        light = decode(video, frames=settings.frames).rgb.mean(axis=(1, 2, 3))
        return "A" if light[-1] > light[0] else "B"


def load():
    print("a line that must not reach the protocol")
    return Brightness()

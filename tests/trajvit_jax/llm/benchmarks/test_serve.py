"""The process that other programs ask: its protocol, and what it does with bad requests."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from trajvit_jax.llm.answering import AnswerSettings, Question
from trajvit_jax.llm.serve import answer_line

ROOT = Path(__file__).parents[4]
MODEL = "tests.trajvit_jax.llm.benchmarks.brightness:load"


class Echo:
    """Answers with what it was asked."""

    def answer(self, video, question, settings):
        raise NotImplementedError

    def answer_all(self, questions, settings):
        return [f"{question} {settings}" for question in questions]


def test_a_request_becomes_questions_and_settings():
    request = {
        "questions": [{"text": "why", "videos": ["a.mp4"], "stop": 2.5}],
        "most_tokens": 16,
        "stop": ["\n\n"],
    }
    reply = answer_line(json.dumps(request), Echo(), AnswerSettings(frames=4))
    question = Question("why", ("a.mp4",), stop=2.5)
    settings = AnswerSettings(frames=4, most_tokens=16, stop=("\n\n",))
    assert reply == {"answers": [f"{question} {settings}"]}


class Counts(Echo):
    """Has no place for some trajectories of every second question."""

    def dropped(self, question, settings):
        return 7 if "b.mp4" in question.videos else 0


def test_what_was_not_read_is_counted():
    questions = [{"text": "why", "videos": [name]} for name in ("a.mp4", "b.mp4")]
    reply = answer_line(json.dumps({"questions": questions}), Counts(), AnswerSettings())
    assert reply["dropped"] == {"1": 7} and "failed" not in reply


class Half:
    """Answers about a.mp4 alone."""

    def answer(self, video, question, settings):
        raise NotImplementedError

    def answer_all(self, questions, settings):
        if any("b.mp4" in one.videos for one in questions):
            raise OSError("b.mp4 is broken")
        return ["yes"] * len(questions)


def test_a_broken_video_leaves_the_others_of_its_batch():
    questions = [{"text": "why", "videos": [name]} for name in ("a.mp4", "b.mp4", "a.mp4")]
    reply = answer_line(json.dumps({"questions": questions}), Half(), AnswerSettings())
    assert reply == {
        "answers": ["yes", "", "yes"],
        "failed": {"1": "OSError: b.mp4 is broken"},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("start", "soon"), ("start", None), ("stop", "1.5"), ("stop", True), ("stop", math.inf)],
)
def test_seconds_that_are_none_are_told_for_their_question_alone(name, value):
    good = {"text": "why", "videos": ["a.mp4"], "stop": None}
    questions = [good, good | {name: value}, good | {"start": 1, "stop": 2.5}]
    reply = answer_line(json.dumps({"questions": questions}), Half(), AnswerSettings())
    assert reply["answers"] == ["yes", "", "yes"]
    assert reply["failed"] == {
        "1": f"ValueError: {name!r} is {value!r}, which must be a number of seconds"
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "a request is like"),
        ('{"questions": [{"txt": "a"}]}', "a question needs a text"),
        ('{"questions": [{"text": "a", "video": "b"}]}', "did you mean 'videos'"),
        ('{"questions": [{"text": "a", "videos": "b.mp4"}]}', "'videos' must be a list of texts"),
        ('{"questions": [], "stop": "b"}', "'stop' must be a list of texts"),
        ('{"questions": [], "most_token": 3}', "did you mean 'most_tokens'"),
        ('{"questions": [], "most_tokens": 0}', "most_tokens must be"),
    ],
)
def test_bad_requests_get_an_error_and_end_nothing(line, message):
    reply = answer_line(line, Echo(), AnswerSettings())
    assert message in reply["error"]


def test_the_process_decodes_videos_and_keeps_its_output_clean(tmp_path):
    path = tmp_path / "brighter.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 8, (64, 48))
    for level in range(20, 220, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    requests = [
        {"questions": [{"text": "brighter?", "videos": [str(path)]}]},
        {"questions": [{"text": "brighter?", "videos": [str(tmp_path / "gone.mp4")]}]},
        {"questions": [{"text": "brighter?", "videos": [str(path)]}] * 2},
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "trajvit_jax.llm.serve",
            f"--model={MODEL}",
            "--frames=4",
            "--batch=2",
        ],
        input="".join(f"{json.dumps(request)}\n" for request in requests),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    ready, first, second, third = map(json.loads, done.stdout.splitlines())
    assert (ready, first, third) == ({"ready": True}, {"answers": ["A"]}, {"answers": ["A", "A"]})
    assert second["answers"] == [""]
    assert "gone.mp4" in second["failed"]["0"]
    assert "a line that must not reach the protocol" in done.stderr

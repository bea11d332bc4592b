"""A judge: a program that reads a question, the right answer and the model's, and says how good.

It is started once. For each answer it gets one JSON object on a line of its standard input, and
prints one on a line of its standard output:

    {"task": "match", "question": "what is he doing", "answer": "skiing",
     "prediction": "he skis", "instructions": "..."}
    {"correct": true, "score": 5}

`task` says what the reply must hold, `instructions` the same in words for a language model. A
reply may be {"error": "why"}: that answer is then left out of `metrics`, and counted as wrong in
`with_failures`, until --retry_failed asks about it again.

| task    | used by                       | reply                                      |
| ------- | ----------------------------- | ------------------------------------------ |
| match   | ActivityNet-QA, MovieChat     | "correct": true or false, "score": 0 to 5  |
| correct | TempCompass, where rules fail | "correct": true or false                   |
| choice  | TempCompass captions          | "choice": letter of one of the "options" of |
|         |                               | the request, or null for none; it has no    |
|         |                               | "answer", which the caption alone must give |
| rate    | MLVU's generation tasks       | the two keys in "ratings" of the request:  |
|         |                               | 1 to 5; it also has "points" to look for   |

lmms-eval asks a GPT model with texts of its own (in utils.py of each task's folder), and its
numbers depend on them and on the model's version: to compare with published numbers, a judge
sends those. The instructions here are ours, to the same effect.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tokenization.annotations.problems import shown
from trajvit_jax.llm.benchmarks.contract import Item, Marks

MATCH = (
    "Decide whether the predicted answer to a question about a video means the same as the correct "
    "answer; synonyms and paraphrases do. Give 'correct' (true or false) and 'score', a whole "
    "number from 0 (nothing in common) to 5 (the same meaning)."
)
CORRECT = (
    "Decide whether the predicted answer to a question about a video is right, given the correct "
    "answer. Give 'correct' (true or false)."
)
CHOICE = (
    "The prediction describes a video. Answer the multiple-choice question from this description "
    "alone. Give 'choice', the letter of the option that it supports, or null if it supports none "
    "of them or does not say enough."
)


class JudgeError(ValueError):
    """The judge cannot be asked, or replies in another form than agreed."""


def match_request(item: Item, prediction: str) -> dict[str, Any]:
    """Asks whether an open answer means the same, and how well it does."""
    return _request("match", MATCH, item, prediction)


def match_marks(item: Item, reply: Mapping[str, Any]) -> Marks:
    """`judge_accuracy`, and `judge_score` from 0 to 5."""
    return {
        "judge_accuracy": float(_truth(reply, "correct")),
        "judge_score": _number(reply, "score", 0.0, 5.0),
    }


def correct_request(item: Item, prediction: str) -> dict[str, Any]:
    """Asks whether an answer that no rule could read is right."""
    return _request("correct", CORRECT, item, prediction)


def correct_marks(item: Item, reply: Mapping[str, Any]) -> Marks:
    """`judge_accuracy`."""
    return {"judge_accuracy": float(_truth(reply, "correct"))}


def choice_request(item: Item, prediction: str) -> dict[str, Any]:
    """Asks which option of a multiple-choice question a caption supports; tells no right one."""
    request = _request("choice", CHOICE, item, prediction) | {"options": list(item.options)}
    del request["answer"]
    return request


def choice_marks(item: Item, reply: Mapping[str, Any]) -> Marks:
    """`judge_accuracy`: whether the letter chosen is that of the right answer."""
    choice = reply.get("choice", "")
    known = [chr(ord("A") + position) for position in range(len(item.options))]
    if choice is not None and choice not in known:
        raise JudgeError(
            f"its 'choice' is {shown(choice)}, which must be one of {', '.join(known)}, or null"
        )
    return {"judge_accuracy": float(choice == item.answer)}


def rate_request(
    item: Item, prediction: str, ratings: Sequence[str], instructions: str
) -> dict[str, Any]:
    """Asks for two ratings from 1 to 5."""
    request = _request("rate", instructions, item, prediction)
    return request | {"ratings": list(ratings), "points": list(item.points)}


def rate_marks(reply: Mapping[str, Any], ratings: Sequence[str]) -> Marks:
    """Each rating, and `judge_score`, their sum."""
    marks = {f"judge_{name}": _number(reply, name, 1.0, 5.0) for name in ratings}
    return marks | {"judge_score": sum(marks.values())}


def _request(task: str, instructions: str, item: Item, prediction: str) -> dict[str, Any]:
    return {
        "task": task,
        "id": item.id,
        "question": item.question,
        "answer": item.answer,
        "prediction": prediction,
        "instructions": instructions,
    }


def _truth(reply: Mapping[str, Any], key: str) -> bool:
    if not isinstance(reply.get(key), bool):
        raise JudgeError(f"its {key!r} is {shown(reply.get(key))}, which must be true or false")
    return reply[key]


def _number(reply: Mapping[str, Any], key: str, low: float, high: float) -> float:
    found: Any = reply.get(key)
    number = isinstance(found, int | float) and not isinstance(found, bool)
    if not (number and low <= found <= high):
        raise JudgeError(
            f"its {key!r} is {shown(found)}, which must be a number {low:g} to {high:g}"
        )
    return float(found)


class Judge:
    """The program, running; use it as a context."""

    def __init__(self, command: str, *, patience: float = 120.0) -> None:
        """Starts it.

        Args:
          command: with its arguments, as in a shell; it gets no shell.
          patience: seconds that a reply may take.

        Raises:
          JudgeError: it cannot be started.
        """
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise JudgeError(f"--judge={command!r} cannot be read: {error}") from error
        if not words:
            raise JudgeError("--judge is empty; it names a program and its arguments")
        self._command, self._patience = command, patience
        self._rest = b""
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise JudgeError(f"--judge={command!r} cannot be started: {error.strerror}") from error

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *error: object) -> None:
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(5 if error[0] is None else 0.1)  # one that hangs is not waited for
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Its reply to a request.

        Raises:
          JudgeError: it ended, took too long, or replied with no JSON object.
        """
        assert self._process.stdin is not None
        line = (json.dumps(request) + "\n").encode()
        try:
            while line:
                line = line[self._process.stdin.write(line) or 0 :]
        except OSError as error:
            raise JudgeError(f"{self._named()} ended with exit code {self._code()}") from error
        answer = self._read_line()
        try:
            reply = json.loads(answer)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            text = shown(answer.decode("utf-8", "replace").strip())
            raise JudgeError(f"{self._named()} printed {text}, not one JSON object on a line")
        return reply

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        end = time.monotonic() + self._patience
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise JudgeError(
                    f"{self._named()} did not reply within {self._patience:g} seconds; it must "
                    "flush its output after each line"
                )
            found = os.read(self._process.stdout.fileno(), 2**16)
            if not found:
                raise JudgeError(f"{self._named()} ended with exit code {self._code()}")
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _named(self) -> str:
        return f"the judge {self._command!r}"

    def _code(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1)
        return None

"""Asks a model all questions, and a judge about all answers; both go on where they were cut off."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trajvit_jax.llm.answerers import answer_each
from trajvit_jax.llm.answering import AnswerSettings, Question, VideoAnswerer
from trajvit_jax.llm.benchmarks.contract import Benchmark, Item, Marks
from trajvit_jax.llm.benchmarks.judge import Judge, JudgeError
from trajvit_jax.llm.benchmarks.lines_file import LinesFile

_HOPELESS = 5  # questions that fail while none was ever answered: nothing works
# Name of the error of a prompt that is too long: what a model cannot read is a result, too.
_TOO_LONG = "ContextOverflow"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question and the file of its video."""

    item: Item
    video: Path

    @property
    def question(self) -> Question:
        """As a model is asked."""
        return Question(self.item.prompt, (self.video,), stop=self.item.stop)

    @property
    def asked(self) -> str:
        """Tells it from a question that had its id in other annotations."""
        return _digest([self.item.prompt, self.video.name, self.item.stop])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def pending(questions: Sequence[Asked], answers: LinesFile, *, retry: bool) -> list[Asked]:
    """The questions that were never asked as they are now; with `retry` also those that failed."""
    todo = []
    for one in questions:
        line = answers.lines.get(one.item.id)
        if line is None or line.get("asked") != one.asked or (retry and "failed" in line):
            todo.append(one)
    return todo


def ask_model(
    questions: Sequence[Asked],
    answerer: VideoAnswerer,
    settings: AnswerSettings,
    answers: LinesFile,
    *,
    batch: int,
) -> None:
    """Asks, and writes each batch of answers as it comes.

    A question that cannot be answered (a broken video, a prompt too long) ends nothing: it is
    written down as failed, with the reason.

    Args:
      questions: to ask; those about one video one after the other are cheapest.
      answerer: the model.
      settings: of answers.
      answers: where they are written.
      batch: questions at a time.

    Raises:
      ValueError: the first questions all failed, and not for the length of their prompts.
    """
    failed: list[str] = []
    with tqdm(total=len(questions), desc="answers", unit="question", mininterval=1) as bar:
        for start in range(0, len(questions), batch):
            part = questions[start : start + batch]
            replies = answer_each(answerer, [one.question for one in part], settings)
            for one, reply in zip(part, replies, strict=True):
                line = {"id": one.item.id, "asked": one.asked}
                if reply.failed:
                    line |= {"failed": reply.failed, "error": reply.error}
                    if reply.error != _TOO_LONG:
                        failed.append(f"{one.item.id!r} ({one.video}): {reply.failed}")
                else:
                    line["prediction"] = reply.text
                    if reply.dropped:
                        line["dropped"] = reply.dropped
                answers.add(line)
            bar.update(len(part))
            if len(failed) >= min(_HOPELESS, len(questions)) and not _any_answer(answers):
                raise ValueError(
                    f"the first {len(failed)} questions all failed; the first: {failed[0]}. "
                    "Once that is cured, run again with --retry_failed"
                )


def _any_answer(answers: LinesFile) -> bool:
    return any("prediction" in line for line in answers.lines.values())


def ask_judge(
    benchmark: Benchmark,
    answered: Sequence[tuple[Item, str]],
    judge: Judge,
    verdicts: LinesFile,
    *,
    retry: bool = False,
) -> None:
    """Asks about each answer that no rule settles and that was not judged yet.

    Args:
      benchmark: says what the judge is asked.
      answered: questions and their answers.
      judge: who is asked.
      verdicts: where its replies are written.
      retry: whether it is also asked again where it replied with an error.

    Raises:
      JudgeError: a reply of another form than agreed, or the judge ended; what it said before is
        kept.
    """
    assert benchmark.judging is not None
    with tqdm(answered, desc="verdicts", unit="answer", mininterval=1) as bar:
        for item, prediction in bar:
            request = benchmark.judging.request(item, prediction)
            if request is None:
                continue
            asked = _asked_of(item, request)
            known = verdicts.lines.get(item.id, {})
            if known.get("asked") == asked and not (retry and "error" in known["reply"]):
                continue
            reply = judge.ask(request)
            line = {"id": item.id, "asked": asked, "prediction": prediction, "reply": reply}
            if "error" not in reply:
                try:
                    line["marks"] = benchmark.judging.marks(item, reply)
                except JudgeError as error:
                    raise JudgeError(
                        f"the judge's reply to the question {item.id!r}: {error}"
                    ) from error
            verdicts.add(line)


def verdict_on(
    benchmark: Benchmark, item: Item, prediction: str, verdicts: Mapping[str, dict]
) -> Mapping[str, Any]:
    """The line with what a judge said of this very answer; {} = it was not asked."""
    line = verdicts.get(item.id)
    if line is None or benchmark.judging is None:
        return {}
    request = benchmark.judging.request(item, prediction)
    same = request is not None and line.get("asked") == _asked_of(item, request)
    return line if same else {}


def _asked_of(item: Item, request: Mapping[str, Any]) -> str:
    """Tells a request from others; kept marks depend on the right answer, told or not."""
    return _digest(request if "answer" in request else {**request, "right": item.answer})


def marks_of(
    benchmark: Benchmark, item: Item, prediction: str, verdicts: Mapping[str, dict]
) -> Marks:
    """Marks by rules, and what a judge said of this very answer.

    Where the judge replied with an error the mark that it was asked for is not there: rules that
    could not read an answer do not make it a wrong one.
    """
    found = benchmark.marks(item, prediction)
    verdict = verdict_on(benchmark, item, prediction, verdicts)
    if "error" in verdict.get("reply", {}):
        found.pop(benchmark.metrics[0].name, None)
    return found | verdict.get("marks", {})

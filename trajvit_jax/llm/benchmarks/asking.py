"""Asks a model all questions, and a judge about all answers; both go on where they were cut off."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from trajvit_jax.llm.answering import AnswerSettings, Question, VideoAnswerer
from trajvit_jax.llm.benchmarks.contract import Benchmark, Item, Marks
from trajvit_jax.llm.benchmarks.judge import Judge, JudgeError
from trajvit_jax.llm.benchmarks.lines_file import LinesFile

_HOPELESS = 5  # questions that fail while none was ever answered: nothing works


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question and the file of its video."""

    item: Item
    video: Path

    @property
    def question(self) -> Question:
        """As a model is asked."""
        return Question(self.item.prompt, (self.video,), stop=self.item.stop)


def pending(questions: Sequence[Asked], answers: LinesFile, *, retry: bool) -> list[Asked]:
    """The questions without an answer; with `retry` also those that failed."""
    done = {name for name, line in answers.lines.items() if not (retry and "failed" in line)}
    return [one for one in questions if one.item.id not in done]


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
      ValueError: the first questions all failed.
    """
    failed: list[str] = []
    done = len(answers.lines)
    with tqdm(
        total=done + len(questions), initial=done, desc="answers", unit="question", mininterval=1
    ) as bar:
        for start in range(0, len(questions), batch):
            part = questions[start : start + batch]
            for one, line in zip(part, _answered(part, answerer, settings), strict=True):
                answers.add({"id": one.item.id} | line)
                if "failed" in line:
                    failed.append(f"{one.item.id!r} ({one.video}): {line['failed']}")
            bar.update(len(part))
            if len(failed) >= min(_HOPELESS, len(questions)) and not _any_answer(answers):
                raise ValueError(
                    f"the first {len(failed)} questions all failed; the first: {failed[0]}. "
                    "Once that is cured, run again with --retry_failed"
                )


def _any_answer(answers: LinesFile) -> bool:
    return any("prediction" in line for line in answers.lines.values())


def _answered(
    part: Sequence[Asked], answerer: VideoAnswerer, settings: AnswerSettings
) -> list[dict[str, str]]:
    try:
        replies = answerer.answer_all([one.question for one in part], settings)
        return [{"prediction": reply} for reply in replies]
    except (ValueError, OSError) as error:
        if len(part) == 1:
            return [{"failed": f"{type(error).__name__}: {error}"}]
    # One of them is at fault: alone the others can be answered.
    return [line for one in part for line in _answered([one], answerer, settings)]


def ask_judge(
    benchmark: Benchmark,
    answered: Sequence[tuple[Item, str]],
    judge: Judge,
    verdicts: LinesFile,
) -> None:
    """Asks about each answer that no rule settles and that was not judged yet.

    Raises:
      JudgeError: a reply of another form than agreed, or the judge ended; what it said before is
        kept.
    """
    assert benchmark.judging is not None
    with tqdm(answered, desc="verdicts", unit="answer", mininterval=1) as bar:
        for item, prediction in bar:
            known = verdicts.lines.get(item.id)
            if known is not None and known.get("prediction") == prediction:
                continue
            request = benchmark.judging.request(item, prediction)
            if request is None:
                continue
            reply = judge.ask(request)
            line = {"id": item.id, "prediction": prediction, "reply": reply}
            if "error" not in reply:
                try:
                    line["marks"] = benchmark.judging.marks(item, reply)
                except JudgeError as error:
                    raise JudgeError(
                        f"the judge's reply to the question {item.id!r}: {error}"
                    ) from error
            verdicts.add(line)


def marks_of(
    benchmark: Benchmark, item: Item, prediction: str, verdicts: Mapping[str, dict]
) -> Marks:
    """Marks by rules, and what a judge said of this very answer."""
    found = benchmark.marks(item, prediction)
    verdict = verdicts.get(item.id, {})
    if verdict.get("prediction") == prediction:
        found |= verdict.get("marks", {})
    return found

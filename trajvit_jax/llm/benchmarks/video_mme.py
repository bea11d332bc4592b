"""Video-MME (Fu et al., 2024): 2,700 four-way questions about 900 videos, short to long.

Files, from the Hub's lmms-lab/Video-MME: test-00000-of-00001.parquet, one row a question with
video_id, duration, domain, sub_category, url, videoID, question_id, task_type, question, options
("A. Apples.", ..) and answer (a letter); or output_test_template.json of
github.com/MME-Benchmarks/Video-MME with a list of videos and their `questions`. Videos are named
by videoID (YouTube's), in the template by video_id.

Prompt, rule and metric as lmms-eval's task `videomme` (frames without subtitles): the letter in
its surest form (`choices.surest_letter`), accuracy over all questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trajvit_jax.llm.benchmarks import choices
from trajvit_jax.llm.benchmarks.contract import Annotations, Benchmark, Item, Marks, Metric
from trajvit_jax.llm.benchmarks.rows import Row, collected, files_below, letters, read_rows

_DURATIONS = ("short", "medium", "long")
_QUESTION = ("question_id", "task_type", "question", "options", "answer")
_VIDEO = ("video_id", "duration", "domain", "sub_category")
_BEFORE = (
    "Select the best answer to the following multiple-choice question based on the video and the "
    "subtitles. Respond with only the letter (A, B, C, or D) of the correct option."
)
_AFTER = "Answer with the option's letter from the given choices directly."


def read(paths: Sequence[Path]) -> Annotations:
    """The questions; see the module.

    Raises:
      AnnotationError: a file that is no such file, or a row that cannot be understood.
    """
    files = files_below(paths, "*.parquet")
    return collected((item for file in files for item in _items(file)), files)


def _items(file: Path) -> Iterator[Item]:
    for where, found in read_rows(file):
        if isinstance(found, dict) and "questions" in found:
            video = Row(file, where, found, needs=(*_VIDEO, "questions"), may=("url", "videoID"))
            questions = video.raw("questions")
            if not isinstance(questions, list):
                raise video.fault("has 'questions', which must be a list")
            for number, each in enumerate(questions, 1):
                at = f"{where} question {number}"
                yield _item(video, Row(file, at, each, needs=_QUESTION, may=("response",)))
        else:
            row = Row(file, where, found, needs=(*_VIDEO, *_QUESTION), may=("url", "videoID"))
            yield _item(row, row)


def _item(video: Row, row: Row) -> Item:
    options = row.texts("options")
    for letter, option in zip(letters(len(options)), options, strict=True):
        if not option.startswith(f"{letter}."):
            raise row.fault(f"has the option {option!r}, which must start with '{letter}.'")
    answer = row.letter("answer", len(options))
    lines = "\n".join(row.raw("options"))
    names = [video.text(key) for key in ("videoID", "video_id") if video.has(key)]
    return Item(
        id=row.text("question_id"),
        videos=tuple(names),
        question=row.text("question"),
        prompt=f"{_BEFORE}\n{row.written('question')}\n{lines}\n\n{_AFTER}",
        answer=answer,
        options=tuple(option[2:].strip() for option in options),
        groups={
            "duration": video.one_of("duration", _DURATIONS),
            "domain": video.text("domain"),
            "sub_category": video.text("sub_category"),
            "task": row.text("task_type"),
        },
    )


def marks(item: Item, reply: str) -> Marks:
    """Marks of a choice, by lmms-eval's rule and by any usual form."""
    chosen = choices.surest_letter(reply, letters(4))
    return choices.choice_marks(chosen, choices.any_letter(reply, item.options), [item.answer])


VIDEO_MME = Benchmark(
    name="videomme",
    title="Video-MME",
    split="test",
    task="videomme",
    files="test-00000-of-00001.parquet, or output_test_template.json",
    read=read,
    marks=marks,
    metrics=(
        Metric("accuracy", "videomme_perception_score"),
        Metric("accuracy_any_form", "the letter or option in any usual form"),
        Metric("unread", "replies in which the rule finds no letter", worst=1.0),
    ),
    most_tokens=16,
    paper={"accuracy": (32.0, 28.9)},
)

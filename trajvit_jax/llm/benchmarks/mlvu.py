"""MLVU (Zhou et al., 2024), dev set: videos of 3 minutes to 2 hours, seven tasks with options.

Files, from the Hub's MLVU/MVLU: json/1_plotQA.json to json/9_summary.json, each a list of video,
duration, question, candidates (texts), answer (one of them) and question_type. Tasks 8 (sub-scene
captions, with scoring_points) and 9 (summaries) have no candidates: they are `mlvu_generation`.
Videos are in folders with the files' names. Two questions of the published 2_needle.json have an
answer that is none of their candidates: they are left out, and named.

Multiple choice: prompt, rule and metric as lmms-eval's task `mlvu_dev`, the letter in its surest
form, accuracy in each task and the mean over tasks (M-Avg). Options are in the form of MLVU's own
programs: lmms-eval's data, whose questions hold them, was not at hand. lmms-eval always divides by
seven; here it is the mean over the tasks that are there, and the result says over how many. Its
data holds a letter for the answer; the public files only its text, so an option that reads the same
is right, too.

Generation, which lmms-eval lacks, as github.com/JUNJIE99/MLVU: a judge rates captions for accuracy
(against the scoring points) and relevance, summaries for completeness and reliability, 1 to 5
each; a task's score is the mean sum, from 2 to 10, and G-Avg the mean of both tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations.problems import AnnotationError
from trajvit_jax.llm.benchmarks import choices, judge
from trajvit_jax.llm.benchmarks.contract import (
    Annotations,
    Benchmark,
    Item,
    Judging,
    Marks,
    Metric,
    Unusable,
)
from trajvit_jax.llm.benchmarks.rows import (
    Row,
    collected,
    files_below,
    lettered,
    letters,
    read_rows,
)

# Types in the files, and what lmms-eval calls the tasks.
_TASKS = {
    "plotQA": "plotQA",
    "findNeedle": "needle",
    "ego": "ego",
    "count": "count",
    "order": "order",
    "anomaly_reco": "anomaly_reco",
    "topic_reasoning": "topic_reasoning",
}
_GENERATION = {"subPlot": "sub_scene", "summary": "summary"}
_RATINGS = {
    "sub_scene": ("accuracy", "relevance"),
    "summary": ("completeness", "reliability"),
}
_INSTRUCTIONS = {
    "sub_scene": (
        "Rate an answer to a question about a scene of a video. 'accuracy', 1 to 5: the mean over "
        "the points, each 5 if the answer has it right, 3 if it mentions it but not quite "
        "correctly, 1 if it misses it. 'relevance', 1 to 5, whether right or wrong: 5 if it only "
        "and surely speaks of what was asked, 1 if it is off the topic."
    ),
    "summary": (
        "Rate a summary of a video against the correct one. 'completeness', 1 to 5: how much of "
        "what the correct one tells is there. 'reliability', 1 to 5: how free it is of statements "
        "that contradict the correct one or were made up."
    ),
}
_KEYS = ("video", "duration", "question", "answer", "question_type")
_AFTER = "Only give the best option.\nBest option: ("


def read_choices(paths: Sequence[Path]) -> Annotations:
    """The multiple-choice questions; see the module.

    Raises:
      AnnotationError: a file that is no such file, or a row that cannot be understood.
    """
    return _read(paths, _TASKS, _choice)


def read_generation(paths: Sequence[Path]) -> Annotations:
    """The questions of both generation tasks; see the module.

    Raises:
      AnnotationError: a file that is no such file, or a row that cannot be understood.
    """
    return _read(paths, _GENERATION, _open)


def _read(
    paths: Sequence[Path],
    tasks: Mapping[str, str],
    convert: Callable[[Path, Row, str, int], Item | Unusable],
) -> Annotations:
    """The questions of these tasks; a folder has those of the others, too."""
    files = files_below(paths, "[1-9]_*.json")
    items: list[Item | Unusable] = []
    for file in files:
        for position, (where, found) in enumerate(read_rows(file)):
            row = Row(file, where, found, needs=_KEYS, may=("candidates", "scoring_points"))
            kind = row.one_of("question_type", (*_TASKS, *_GENERATION))
            if kind in tasks:
                items.append(convert(file, row, tasks[kind], position))
    if not items:
        raise AnnotationError(
            f"{', '.join(map(str, files))}: no question_type is one of {', '.join(tasks)}; mlvu "
            "takes 1_plotQA.json to 7_topic_reasoning.json, mlvu_generation the files 8 and 9"
        )
    return collected(items, files)


def _choice(file: Path, row: Row, task: str, position: int) -> Item | Unusable:
    if not row.has("candidates"):
        raise row.fault(f"has no 'candidates', but the question_type of the task {task!r}")
    options, answer = row.texts("candidates"), row.any_text("answer")
    right = [
        letter
        for letter, option in zip(letters(len(options)), options, strict=True)
        if option == answer
    ]
    if not right:
        return row.unusable(f"the answer {answer!r} is none of its candidates")
    # As MLVU's own programs: as written, but for the end.
    lines = lettered(row.raw("candidates"), "({letter}) {option}").rstrip()
    return _item(
        file,
        row,
        task,
        position,
        prompt=f"Question: {row.written('question')}\nOptions:\n{lines}\n{_AFTER}",
        answer=right[0],
        also=tuple(right[1:]),
        options=options,
    )


def _open(file: Path, row: Row, task: str, position: int) -> Item:
    points = row.texts("scoring_points") if row.has("scoring_points") else ()
    if task == "sub_scene" and not points:
        raise row.fault("has no 'scoring_points', which the judge rates by")
    return _item(
        file,
        row,
        task,
        position,
        prompt=row.written("question"),
        answer=row.text("answer"),
        points=points,
    )


def _item(file: Path, row: Row, task: str, position: int, **given: Any) -> Item:
    video = row.text("video")
    return Item(
        id=f"{task}_{position}",
        videos=(f"{file.stem}/{video}", video),
        question=row.any_text("question"),
        groups={"task": task},
        **given,
    )


def marks(item: Item, reply: str) -> Marks:
    """Marks of a choice, by lmms-eval's rule and by any usual form."""
    chosen = choices.surest_letter(reply, letters(4))
    lenient = choices.any_letter(reply, item.options)
    return choices.choice_marks(chosen, lenient, (item.answer, *item.also))


def generation_marks(item: Item, reply: str) -> Marks:
    """Whether the texts are equal: of long texts hardly any is."""
    return {"exact_match": choices.same(reply, item.answer)}


def _rate_request(item: Item, reply: str) -> dict[str, Any]:
    task = item.groups["task"]
    return judge.rate_request(item, reply, _RATINGS[task], _INSTRUCTIONS[task])


def _rate_marks(item: Item, reply: Mapping[str, Any]) -> Marks:
    return judge.rate_marks(reply, _RATINGS[item.groups["task"]])


MLVU = Benchmark(
    name="mlvu",
    title="MLVU, multiple choice",
    split="dev",
    task="mlvu_dev",
    files="the folder of 1_plotQA.json to 9_summary.json, or some of them",
    read=read_choices,
    marks=marks,
    metrics=(
        Metric("accuracy", "mlvu_percetion_score, M-Avg: mean over tasks", each="task", groups=7),
        Metric("accuracy_any_form", "in any usual form", each="task", groups=7),
        Metric("unread", "replies in which the rule finds no letter", worst=1.0),
    ),
    most_tokens=16,
    paper={"accuracy": (32.2, 19.2)},
)
MLVU_GENERATION = Benchmark(
    name="mlvu_generation",
    title="MLVU, generation",
    split="dev",
    task="",
    files="the folder of 1_plotQA.json to 9_summary.json, or 8_sub_scene.json and 9_summary.json",
    read=read_generation,
    marks=generation_marks,
    metrics=(
        Metric(
            "judge_score",
            "G-Avg, 2 to 10: mean over both tasks",
            scale=1.0,
            each="task",
            groups=2,
            most=10.0,
            worst=2.0,
        ),
        Metric("exact_match", "equal up to articles and punctuation", each="task", groups=2),
    ),
    most_tokens=1024,
    stop=(),
    judging=Judging(_rate_request, _rate_marks),
)

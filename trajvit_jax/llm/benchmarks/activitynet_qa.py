"""ActivityNet-QA (Yu et al., 2019): 8,000 short open questions about 800 test videos.

Files, from github.com/MILVLG/activitynet-qa: test_q.json, a list of video_name, question and
question_id, and test_a.json, a list of question_id, answer and type (0 to 8). A video's file is
named v_ and its video_name.

Prompt and metrics as lmms-eval's task `activitynetqa`: a judge says whether the answer matches
and gives 0 to 5 (`gpt_eval_accuracy`, `gpt_eval_score`). Beside it, exact match, which is what
the benchmark's own evaluation/eval.py counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tokenization.annotations.problems import AnnotationError
from trajvit_jax.llm.benchmarks import choices, judge
from trajvit_jax.llm.benchmarks.contract import (
    Annotations,
    Benchmark,
    Item,
    Judging,
    Marks,
    Metric,
)
from trajvit_jax.llm.benchmarks.rows import Row, collected, files_below, read_rows

_TYPES = (
    "motion",
    "spatial relation",
    "temporal relation",
    "yes/no",
    "color",
    "object",
    "location",
    "number",
    "other",
)
_AFTER = "Answer the question using a single word or phrase."
_ASKED = ("video_name", "question", "question_id")
_ANSWERED = ("question_id", "answer", "type")


def read(paths: Sequence[Path]) -> Annotations:
    """The questions; see the module.

    Raises:
      AnnotationError: files that are no such files, or a question without an answer.
    """
    asked: dict[str, Row] = {}
    answered: dict[str, Row] = {}
    files = files_below(paths, "test_?.json")
    for file in files:
        for where, found in read_rows(file):
            has_answer = isinstance(found, dict) and "answer" in found
            keys, rows = (_ANSWERED, answered) if has_answer else (_ASKED, asked)
            row = Row(file, where, found, needs=keys)
            name = row.text("question_id")
            if name in rows:
                raise row.fault(f"has the question_id {name!r} of an earlier item")
            rows[name] = row
    alone = sorted(asked.keys() ^ answered.keys())
    if alone:
        side = "answer" if alone[0] in asked else "question"
        raise AnnotationError(
            f"{', '.join(map(str, files))}: the question_id {alone[0]!r} has no {side} (and "
            f"{len(alone) - 1} more); name the file of questions and that of answers, both of one "
            "split"
        )
    return collected(_items(asked, answered), files)


def _items(asked: Mapping[str, Row], answered: Mapping[str, Row]) -> Iterator[Item]:
    for name, row in asked.items():
        kind = answered[name].number("type")
        if kind not in range(len(_TYPES)):
            raise answered[name].fault(f"has 'type': {kind:g}, which must be 0 to 8")
        video = row.text("video_name")
        yield Item(
            id=name,
            videos=(f"v_{video}", video),
            question=row.text("question"),
            prompt=f"{row.written('question').capitalize()}? {_AFTER}",
            answer=answered[name].text("answer"),
            groups={"type": _TYPES[int(kind)]},
        )


def marks(item: Item, reply: str) -> Marks:
    """Whether the answers are equal."""
    return {"exact_match": choices.same(reply, item.answer)}


ACTIVITYNET_QA = Benchmark(
    name="activitynet_qa",
    title="ActivityNet-QA",
    split="test",
    task="activitynetqa",
    files="test_q.json and test_a.json",
    read=read,
    marks=marks,
    metrics=(
        Metric("judge_accuracy", "gpt_eval_accuracy"),
        Metric("judge_score", "gpt_eval_score, 0 to 5", scale=1.0, most=5.0),
        Metric("exact_match", "equal up to articles and punctuation"),
    ),
    most_tokens=64,
    stop=("ASSISTANT:",),
    judging=Judging(judge.match_request, judge.match_marks),
    paper={"judge_accuracy": (38.0, 30.7), "judge_score": (2.7, 2.6)},
)

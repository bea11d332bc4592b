"""MovieChat-1K (Song et al., 2024), test: open questions about clips of films, about 8 minutes.

Files, from the Hub's Enxin/MovieChat-1K-test: a folder gt/ with one JSON a video: `info` (with
video_path, fps, num_frame), `global`, a list of question and answer, and `breakpoint`, with a
`time` too: the frame up to which the question goes. Or the Parquet files of
Enxin/lmms_MovieChat_test: video_name, question, answer and, for breakpoints, time (in frames; its
rows name no frame rate, so breakpoints need the JSON files). This is known from documentation and
programs of others alone: the files were not at hand. So keys that are not known are overlooked, and
counted in the result's notes.

Prompt and metrics as lmms-eval's tasks `moviechat_global` and `moviechat_breakpoint`: a judge says
whether the answer matches and gives 0 to 5. Beside it, exact match. The paper reports one number,
most likely of `global`: it speaks of the whole long video.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
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
)
from trajvit_jax.llm.benchmarks.rows import Row, collected, files_below, read_json, read_rows

_BEFORE = (
    "You are able to understand the visual content that the user provides."
    "Follow the instructions carefully and explain your answers in detail."
)


def read(paths: Sequence[Path], *, mode: str) -> Annotations:
    """The questions; see the module.

    Args:
      paths: the folder of JSON files, some of them, or Parquet files.
      mode: global, or breakpoint.

    Raises:
      AnnotationError: a file that is no such file, or a row that cannot be understood.
    """
    files = files_below(paths, "*.json")
    unknown: Counter[str] = Counter()
    found = collected((item for file in files for item in _items(file, mode, unknown)), files)
    if not unknown:
        return found
    named = ", ".join(f"{key!r} {count:,}" for key, count in unknown.most_common())
    return dataclasses.replace(found, notes={"unknown": f"keys that mean nothing here: {named}"})


def _items(file: Path, mode: str, unknown: Counter[str]) -> Iterator[Item]:
    if file.suffix.lower() == ".json":
        yield from _video(file, mode, unknown)
        return
    if mode == "breakpoint":
        raise AnnotationError(
            f"{file} has no frame rates, which breakpoints need; name the folder of "
            "MovieChat-1K-test's JSON files"
        )
    counts: dict[str, int] = {}
    for where, found in read_rows(file):
        keys = ("video_name", "question", "answer")
        row = _row(file, where, found, keys, ("time",), unknown)
        _check_global(row)
        video = row.text("video_name")
        number = counts[video] = counts.get(video, -1) + 1
        yield _item(row, video, mode, number, stop=None)


def _video(file: Path, mode: str, unknown: Counter[str]) -> Iterator[Item]:
    others = ("global", "breakpoint", "caption")
    whole = _row(file, "", read_json(file), ("info", mode), others, unknown)
    info: Any = whole.raw("info")
    if not isinstance(info, dict) or "video_path" not in info:
        raise whole.fault("has 'info' without 'video_path'")
    info = Row(file, "info", info, needs=("video_path",), may=tuple(info))
    questions = whole.raw(mode)
    if not isinstance(questions, list):
        raise whole.fault(f"has {mode!r}, which must be a list")
    for number, found in enumerate(questions):
        needs = ("question", "answer", *(("time",) if mode == "breakpoint" else ()))
        row = _row(file, f"{mode} question {number}", found, needs, ("time",), unknown)
        stop = None
        if mode == "breakpoint":
            rate = info.number("fps") if info.has("fps") else 0.0
            if not rate:
                raise whole.fault("has 'info' without 'fps', which breakpoints need")
            stop = max(row.number("time"), 1.0) / rate  # at frame 0 there is one frame to see
        else:
            _check_global(row)
        yield _item(row, info.text("video_path"), mode, number, stop=stop)


def _row(
    file: Path,
    where: str,
    found: object,
    needs: Collection[str],
    may: Collection[str],
    unknown: Counter[str],
) -> Row:
    """A row, whose unknown keys are counted."""
    others = [] if not isinstance(found, dict) else [str(k) for k in found if k not in needs]
    unknown.update(key for key in others if key not in may)
    return Row(file, where, found, needs=needs, may=others)


def _check_global(row: Row) -> None:
    """Raises AnnotationError for a question that goes up to a moment only."""
    time = row.raw("time") if row.has("time") else 0
    if isinstance(time, int | float) and time > 0:
        raise row.fault(
            f"has 'time': {time:g}, so it is a question of moviechat_breakpoint; name the file of "
            "the global questions, or the folder of MovieChat-1K-test's JSON files"
        )


def _item(row: Row, video: str, mode: str, number: int, *, stop: float | None) -> Item:
    return Item(
        id=f"{video}/{mode}/{number}",
        videos=(video,),
        question=row.text("question"),
        prompt=f"{_BEFORE}{row.written('question')}",
        answer=row.text("answer"),
        stop=stop,
    )


def marks(item: Item, reply: str) -> Marks:
    """Whether the answers are equal."""
    return {"exact_match": choices.same(reply, item.answer)}


def _mode(mode: str, paper: dict[str, tuple[float, float]]) -> Benchmark:
    return Benchmark(
        name=f"moviechat_{mode}",
        title=f"MovieChat-1K, {mode}",
        split="test",
        task=f"moviechat_{mode}",
        files="the folder gt/ of JSON files" + (", or Parquet" if mode == "global" else ""),
        read=functools.partial(read, mode=mode),
        marks=marks,
        metrics=(
            Metric("judge_accuracy", "gpt_eval_acc, in percent"),
            Metric("judge_score", "gpt_eval_score, 0 to 5", scale=1.0, most=5.0),
            Metric("exact_match", "equal up to articles and punctuation"),
        ),
        most_tokens=1024,
        judging=Judging(judge.match_request, judge.match_marks),
        paper=paper,
    )


MOVIECHAT_GLOBAL = _mode("global", {"judge_accuracy": (36.7, 34.7), "judge_score": (3.1, 3.1)})
MOVIECHAT_BREAKPOINT = _mode("breakpoint", {})

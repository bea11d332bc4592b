"""TempCompass (Liu et al., 2024): action, direction, speed, order, change, asked in four ways.

Files, from github.com/llyx97/TempCompass: questions/multi-choice.json, yes_no.json,
caption_matching.json and captioning.json, each {video: {dimension: [{question, answer}]}}. The
task `tempcompass_captioning` also takes multi-choice.json, by whose first question on the same
video and dimension a caption is judged.

Prompts, rules and metric as lmms-eval's tasks: accuracy over all questions, and of each dimension.
An answer that the rules cannot read goes to a judge, as there; without one it counts as wrong. A
caption is right if the judge, who sees only the caption, answers the multiple-choice question
rightly from it. Beside it stands whether the caption has the text of the right option and of no
other (`option_named`), and whether it is that text (`exact_match`). A letter in a caption is no
option's: the model reads them in another order, as "Information A: ..".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from trajvit_jax.llm.benchmarks.rows import Row, collected, files_below, letters, read_json

_DIMENSIONS = ("action", "direction", "speed", "order", "attribute_change")
_OPTION = re.compile(r"([A-D])\. ?(.*)")  # one option of the public file lacks the space
_LETTER = re.compile(r"[ABCD](?:\Z|[.)])")
_CAPTION = re.compile(r"((?:Caption|Sentence|Option) ([AB12])): (.*)")


class _Question(NamedTuple):
    """An annotated question: its place in the files, video, dimension and number there."""

    row: Row
    video: str
    dimension: str
    number: int

    @property
    def id(self) -> str:
        return f"{self.video}/{self.dimension}/{self.number}"


def _questions(file: Path) -> Iterator[_Question]:
    found = read_json(file)
    if not isinstance(found, dict):
        raise AnnotationError(f"{file} should map videos to dimensions; is it another's file?")
    for video, dimensions in found.items():
        whole = Row(file, f"video {video!r}", dimensions, needs=(), may=_DIMENSIONS)
        for dimension in dimensions:
            listed = whole.raw(dimension)
            if not isinstance(listed, list):
                raise whole.fault(f"has {dimension!r}, which must be a list")
            for number, each in enumerate(listed):
                where = f"video {video!r}, {dimension}, question {number}"
                row = Row(file, where, each, needs=("question", "answer"))
                yield _Question(row, video, dimension, number)


def _read(paths: Sequence[Path], *, name: str, convert: Callable[[_Question], Item]) -> Annotations:
    files = files_below(paths, name)
    return collected((convert(one) for file in files for one in _questions(file)), files)


def _item(one: _Question, **given: Any) -> Item:
    return Item(
        id=one.id,
        videos=(one.video,),
        question=one.row.text("question"),
        groups={"dimension": one.dimension},
        **given,
    )


def _multi_choice(one: _Question) -> Item:
    options, letter = _options(one.row)
    prompt = f"{one.row.written('question')}\nPlease directly give the best option:"
    return _item(one, prompt=prompt, answer=letter, options=options)


def _options(row: Row) -> tuple[tuple[str, ...], str]:
    """Texts of the options in a question, and the letter of the answer."""
    lines = [line.strip() for line in row.text("question").split("\n")[1:]]
    found = [_OPTION.fullmatch(line) for line in lines]
    named = [match[1] for match in found if match is not None]
    if not lines or len(named) < len(lines) or tuple(named) != letters(len(lines)):
        raise row.fault("has a question whose lines after the first are not 'A. ..', 'B. ..'")
    answer = row.text("answer")
    if answer not in lines:
        raise row.fault(f"has 'answer': {answer!r}, which is none of its options")
    return tuple(match[2] for match in found if match is not None), answer[0]


def _yes_no(one: _Question) -> Item:
    prompt = f"{one.row.written('question')}\nPlease answer yes or no:"
    return _item(one, prompt=prompt, answer=one.row.one_of("answer", ("yes", "no")))


def _caption_matching(one: _Question) -> Item:
    question, answer = one.row.text("question"), one.row.text("answer")
    lines = question.split("\n")[1:]
    if len(lines) < 2 or not all(map(_CAPTION.fullmatch, lines)):
        raise one.row.fault("has a question whose lines are not 'Caption A: ..', 'Caption B: ..'")
    if answer not in lines:
        raise one.row.fault(f"has 'answer': {answer!r}, which is none of its captions")
    prompt = f"{one.row.written('question')}\nPlease directly give the best option:"
    return _item(one, prompt=prompt, answer=answer, options=tuple(lines))


def read_captioning(paths: Sequence[Path]) -> Annotations:
    """The captioning questions, each with the multiple-choice question that judges it.

    Raises:
      AnnotationError: files that are no such files, or a caption that nothing can judge.
    """
    files = files_below(paths, "*.json")
    judges: dict[tuple[str, str], _Question] = {}
    captions: list[_Question] = []
    for file in files:
        if file.name in ("yes_no.json", "caption_matching.json", "meta_info.json"):
            continue  # of a folder of all tasks
        for one in _questions(file):
            if "\nInformation A: " in one.row.text("question"):
                captions.append(one)
            elif one.number == 0:
                judges[one.video, one.dimension] = one
    return collected((_captioning(one, judges) for one in captions), files)


def _captioning(one: _Question, judges: Mapping[tuple[str, str], _Question]) -> Item:
    judging = judges.get((one.video, one.dimension))
    if judging is None:
        raise one.row.fault(
            "has no multiple-choice question on its video and dimension; name multi-choice.json, "
            "too"
        )
    options, letter = _options(judging.row)
    return Item(
        id=one.id,
        videos=(one.video,),
        question=judging.row.text("question"),
        prompt=one.row.written("question"),
        answer=letter,
        options=options,
        groups={"dimension": one.dimension},
    )


def multi_choice_marks(item: Item, reply: str) -> Marks:
    """Marks of a choice: a reply that is an option or its letter, or starts "B." or "B)"."""
    lines = [f"{letter}. {text}" for letter, text in zip("ABCD", item.options, strict=False)]
    read = reply in lines or _LETTER.match(reply)
    lenient = choices.any_letter(reply, item.options)
    return choices.choice_marks(reply[0] if read else None, lenient, [item.answer])


def yes_no_marks(item: Item, reply: str) -> Marks:
    """Marks of a yes or a no at the start of a reply."""
    chosen = choices.starts_yes_no(reply)
    return choices.choice_marks(chosen, choices.any_yes_no(reply), [item.answer])


def caption_matching_marks(item: Item, reply: str) -> Marks:
    """Marks of a choice: a reply that is a caption with or without its name, or the name."""
    names, shorts, texts = zip(*map(_caption, item.options), strict=True)
    behind = reply.split(") ")[1] if ") " in reply else reply  # "A) a man runs"
    forms = {reply, reply.replace(".", "")}
    chosen = meant = None
    for line, name, short, text in zip(item.options, names, shorts, texts, strict=True):
        if reply == line or text.split(": ")[0] in (reply, behind) or forms & {name, short}:
            chosen = line
        if choices.plain(reply) == choices.plain(line):
            meant = line
    if meant is None and (label := choices.any_letter(reply, texts, shorts)):
        meant = item.options[shorts.index(label)]
    return choices.choice_marks(chosen, meant, [item.answer])


def _caption(line: str) -> tuple[str, str, str]:
    """Of "Caption A: a man runs" the name, its last part and the text."""
    match = _CAPTION.fullmatch(line)
    assert match is not None, line  # the reader has looked
    return match[1], match[2], match[3]


def captioning_marks(item: Item, reply: str) -> Marks:
    """Whether the caption names the right option, by its text and alone, and whether it is that."""
    right = item.options[letters(len(item.options)).index(item.answer)]
    return {
        "option_named": float(choices.only_option(reply, item.options) == item.answer),
        "exact_match": choices.same(reply, right),
    }


def _unread_request(
    rules: Callable[[Item, str], Marks], item: Item, reply: str
) -> dict[str, Any] | None:
    """Asks about a reply that the rules could not read."""
    return judge.correct_request(item, reply) if rules(item, reply)["unread"] else None


def _unread_marks(item: Item, reply: Mapping[str, Any]) -> Marks:
    """The judge's word is the accuracy, as in lmms-eval."""
    return {"accuracy": judge.correct_marks(item, reply)["judge_accuracy"]}


def _by_rules(
    name: str,
    title: str,
    file: str,
    convert: Callable[[_Question], Item],
    marks: Callable[[Item, str], Marks],
    paper: tuple[float, float],
) -> Benchmark:
    return Benchmark(
        name=f"tempcompass_{name}",
        title=f"TempCompass, {title}",
        split="test",
        task=f"tempcompass_{name}",
        files=file,
        read=functools.partial(_read, name=file, convert=convert),
        marks=marks,
        metrics=(
            Metric("accuracy", "avg_accuracy"),
            Metric("accuracy_any_form", "in any usual form"),
            Metric("unread", "replies that the rules cannot read, the judge's part", worst=1.0),
        ),
        most_tokens=1024,
        judging=Judging(functools.partial(_unread_request, marks), _unread_marks, needed=False),
        paper={"accuracy": paper},
    )


MULTI_CHOICE = _by_rules(
    "multi_choice",
    "multiple choice",
    "multi-choice.json",
    _multi_choice,
    multi_choice_marks,
    (40.0, 39.1),
)
YES_NO = _by_rules("yes_no", "yes/no", "yes_no.json", _yes_no, yes_no_marks, (50.6, 50.1))
CAPTION_MATCHING = _by_rules(
    "caption_matching",
    "caption matching",
    "caption_matching.json",
    _caption_matching,
    caption_matching_marks,
    (59.9, 58.4),
)
CAPTIONING = Benchmark(
    name="tempcompass_captioning",
    title="TempCompass, captioning",
    split="test",
    task="tempcompass_captioning",
    files="captioning.json and multi-choice.json, or their folder",
    read=read_captioning,
    marks=captioning_marks,
    metrics=(
        Metric("judge_accuracy", "avg_accuracy"),
        Metric("option_named", "the right option's text is in the caption, and no other's"),
        Metric("exact_match", "the caption is the right option's text"),
    ),
    most_tokens=1024,
    judging=Judging(judge.choice_request, judge.choice_marks),
    paper={"judge_accuracy": (31.1, 30.4)},
)

"""What a benchmark is: a reader of its files, marks for an answer, and metrics of the marks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# What an answer is worth, by name: 0 to 1, or a judge's score. A mark that nobody could give
# (the judge was not asked, no WordNet) is not there.
Marks = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
      id: unique in the benchmark; the same in every run.
      videos: names that the video's file may have below the folder of videos, likeliest first.
      question: as annotated, for the judge and for people.
      prompt: as the model reads it.
      answer: the right one: a letter, or a text.
      options: texts to choose from, in the order of their letters; none = an open question.
      also: further right answers.
      groups: what kind of question it is, such as {"duration": "short"}.
      stop: second of the video up to which it may be seen; None = its end.
      points: what a judge looks for in the answer.
    """

    id: str
    videos: tuple[str, ...]
    question: str
    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stop: float | None = None
    points: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Unusable:
    """An annotated question that nobody can be asked.

    Attributes:
      where: file and place in it.
      reason: what is wrong with it.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The questions of a benchmark, as its files give them.

    Attributes:
      items: in the order of the files.
      unusable: known faults of the public files; other faults are errors.
      notes: what else a result should say of the files, by a word for it.
    """

    items: tuple[Item, ...]
    unusable: tuple[Unusable, ...] = ()
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of a benchmark: the mean of one mark.

    Attributes:
      name: of the mark and of the number.
      about: in a few words; what lmms-eval calls it.
      scale: 100 for percent, 1 for a judge's score.
      each: name of a group: the mean of its groups' means; "" = over all questions alike.
      groups: how many groups there are; 0 = it is no mean of them.
      most: the highest mark.
      worst: the mark of a question that the model failed to answer, or the judge to judge.
    """

    name: str
    about: str
    scale: float = 100.0
    each: str = ""
    groups: int = 0
    most: float = 1.0
    worst: float = 0.0


@dataclasses.dataclass(frozen=True)
class Judging:
    """How a judge is asked about an answer.

    Attributes:
      request: what it is sent about an answer; None = the rules were enough.
      marks: what its reply is worth; raises ValueError for a reply of another form.
      needed: False where rules settle most answers and the judge only the rest.
    """

    request: Callable[[Item, str], dict[str, Any] | None]
    marks: Callable[[Item, Mapping[str, Any]], Marks]
    needed: bool = True


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark, or one task of it.

    Attributes:
      name: in the command.
      title: in tables.
      split: that is usually reported.
      task: its name in lmms-eval.
      files: what --annotations names.
      read: reads those files; raises AnnotationError.
      marks: of an answer, by rules alone.
      metrics: the first is the one that papers report.
      most_tokens: of an answer, as lmms-eval lets models write.
      stop: texts that end an answer: an empty line, where lmms-eval's task does not say.
      judging: None = rules are enough.
      paper: what Table 4 of the paper reports, by metric: (TrajViT, ViT3D).
    """

    name: str
    title: str
    split: str
    task: str
    files: str
    read: Callable[[Sequence[Path]], Annotations]
    marks: Callable[[Item, str], Marks]
    metrics: tuple[Metric, ...]
    most_tokens: int
    stop: tuple[str, ...] = ("\n\n",)
    judging: Judging | None = None
    paper: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

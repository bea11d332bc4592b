"""NExT-QA (Xiao et al., 2021): causal, temporal and descriptive questions about daily life.

Multiple choice, from github.com/doc-doc/NExT-QA: test.csv or val.csv with video, frame_count,
width, height, question, answer (0 to 4), qid, type, a0 to a4. Open-ended, from
github.com/doc-doc/NExT-OE: test.csv or val.csv without options and with the answer as text, and
add_reference_answer_test.json ({video: {qid: answer}}), a second right answer of some questions.
The Hub's lmms-eval/NExTQA has both as Parquet, with a column additional_ref_answer. Videos are
named by `video`, or where VidOR's folders were kept by map_vid_vidorID.json ("0101/2909445186").

Prompts, rules and metrics as lmms-eval's tasks `nextqa_mc_test` and `nextqa_oe_test`. Multiple
choice: the last letter named (`choices.last_letter`). Where that finds none lmms-eval draws an
option at random; here the reply counts a fifth, which is what that brings on average. Open-ended:
WUPS at threshold 0, over all questions; answers to counting and yes/no questions (DC, DB) count
only if equal. lmms-eval also computes WUPS at 0.9, with the second answer at threshold 0, but
does not report it; here both are at 0.9, as in the benchmark's own program. See `wups` for what
differs there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tokenization.annotations.problems import AnnotationError
from trajvit_jax.llm.benchmarks import choices
from trajvit_jax.llm.benchmarks.contract import Annotations, Benchmark, Item, Marks, Metric
from trajvit_jax.llm.benchmarks.rows import (
    Row,
    collected,
    files_below,
    lettered,
    letters,
    read_json,
    read_rows,
)
from trajvit_jax.llm.benchmarks.wordnet import WordNet
from trajvit_jax.llm.benchmarks.wups import words, wups

# CW and CH ask why and how, TN and TP for what came next or before, TC for what went on meanwhile;
# DB are yes/no, DC counts, DL places, DO other descriptions.
_TYPES = ("CW", "CH", "TN", "TP", "TC", "DB", "DC", "DL", "DO")
_FAMILIES = {"C": "causal", "T": "temporal", "D": "descriptive"}
_COMMON = ("video", "question", "answer", "qid", "type")
_SIZES = ("frame_count", "width", "height")
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")
_PHRASE = "Answer a question using a short phrase or sentence."


def read_choices(paths: Sequence[Path]) -> Annotations:
    """The multiple-choice questions; see the module.

    Raises:
      AnnotationError: a file that is no such file, or a row that cannot be understood.
    """
    files, folders, _ = _sorted(paths)
    return collected((item for file in files for item in _choices(file, folders)), files)


def _choices(file: Path, folders: Mapping[str, str]) -> Iterator[Item]:
    for where, found in read_rows(file):
        row = Row(file, where, found, needs=(*_COMMON, *_OPTIONS), may=_SIZES)
        options = tuple(row.text(key) for key in _OPTIONS)
        answer = row.number("answer")
        if answer not in range(len(options)):
            raise row.fault(f"has 'answer': {row.raw('answer')!r}, which must be 0 to 4")
        question = row.text("question")
        yield _item(
            row,
            folders,
            prompt=f"{question}\n{lettered(options)}",
            answer=letters(len(options))[int(answer)],
            options=options,
        )


def read_open(paths: Sequence[Path]) -> Annotations:
    """The open-ended questions; see the module.

    Raises:
      AnnotationError: a file that is no such file, or a row that cannot be understood.
    """
    files, folders, second = _sorted(paths)
    return collected((item for file in files for item in _open(file, folders, second)), files)


def _open(
    file: Path, folders: Mapping[str, str], second: Mapping[str, Mapping[str, str]]
) -> Iterator[Item]:
    for where, found in read_rows(file):
        row = Row(file, where, found, needs=_COMMON, may=(*_SIZES, "additional_ref_answer"))
        other = second.get(row.text("video"), {}).get(row.text("qid"), "").strip()
        if not other and row.has("additional_ref_answer"):
            other = str(row.raw("additional_ref_answer")).strip()
        yield _item(
            row,
            folders,
            prompt=f"{row.text('question')}\n{_PHRASE}",
            answer=row.text("answer"),
            also=(other,) if other else (),
        )


def _item(
    row: Row,
    folders: Mapping[str, str],
    *,
    prompt: str,
    answer: str,
    options: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
) -> Item:
    video, kind = row.text("video"), row.one_of("type", _TYPES)
    return Item(
        id=f"{video}_{row.text('qid')}",
        videos=(video, *filter(None, [folders.get(video)])),
        question=row.text("question"),
        prompt=prompt,
        answer=answer,
        options=options,
        also=also,
        # The benchmark counts questions for what came before as those for what came next.
        groups={"family": _FAMILIES[kind[0]], "type": "TN" if kind == "TP" else kind},
    )


def _sorted(
    paths: Sequence[Path],
) -> tuple[list[Path], dict[str, str], dict[str, dict[str, str]]]:
    """Files of questions, VidOR's folder of each video, and second answers."""
    files: list[Path] = []
    folders: dict[str, str] = {}
    second: dict[str, dict[str, str]] = {}
    for file in files_below(paths, "*.parquet"):
        found = read_json(file) if file.suffix.lower() == ".json" else None
        if not isinstance(found, dict):
            files.append(file)
        elif all(isinstance(value, str) for value in found.values()):
            folders |= found
        elif all(_is_texts(value) for value in found.values()):
            second |= found
        else:
            raise AnnotationError(
                f"{file} maps videos neither to VidOR's folders nor to {{qid: answer}}; is it the "
                "file of another benchmark?"
            )
    if not files:
        raise AnnotationError(
            f"{', '.join(map(str, paths))}: no file has questions; name test.csv, too"
        )
    return files, folders, second


def _is_texts(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(one, str) for one in found.values())


def choice_marks(item: Item, reply: str) -> Marks:
    """Marks of a choice; a fifth where lmms-eval would guess."""
    chosen = choices.last_letter(reply, item.options)
    found = choices.choice_marks(chosen, choices.any_letter(reply, item.options), [item.answer])
    return found if chosen is not None else found | {"accuracy": 1 / len(item.options)}


def open_marks(item: Item, reply: str, *, wordnet: WordNet | None = None) -> Marks:
    """Whether an answer is equal to a right one and, with a WordNet, its WUPS."""
    answers = (item.answer, *item.also)
    found = {"exact_match": choices.same(reply, *answers)}
    if wordnet is None:
        return found
    said = words(reply, wordnet)
    right = [words(answer, wordnet) for answer in answers]
    if item.groups["type"] in ("DC", "DB"):
        equal = float(said in right)
        return found | {"wups": equal, "wups_0.9": equal}
    return found | {
        "wups": max(wups(said, answer, wordnet, 0.0) for answer in right),
        "wups_0.9": max(wups(said, answer, wordnet, 0.9) for answer in right),
    }


NEXTQA_CHOICES = Benchmark(
    name="nextqa_mc",
    title="NExT-QA, multiple choice",
    split="test",
    task="nextqa_mc_test",
    files="test.csv, and map_vid_vidorID.json if the videos are in VidOR's folders",
    read=read_choices,
    marks=choice_marks,
    metrics=(
        Metric("accuracy", "exact_match"),
        Metric("accuracy_any_form", "the letter or option in any usual form; no guesses"),
        Metric("unread", "replies for which lmms-eval would guess", worst=1.0),
    ),
    most_tokens=1024,
    paper={"accuracy": (37.0, 29.5)},
)
NEXTQA_OPEN = Benchmark(
    name="nextqa_oe",
    title="NExT-QA, open-ended",
    split="test",
    task="nextqa_oe_test",
    files="test.csv and add_reference_answer_test.json of NExT-OE",
    read=read_open,
    marks=open_marks,
    metrics=(
        Metric("wups", "WUPS (threshold 0)"),
        Metric("wups_0.9", "WUPS with threshold 0.9"),
        Metric("exact_match", "equal up to articles and punctuation"),
    ),
    most_tokens=1024,
    paper={"wups": (65.1, 49.2)},
)

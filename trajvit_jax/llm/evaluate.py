r"""Evaluates a VideoLLM on a VideoQA benchmark.

Examples:
  python -m trajvit_jax.llm.evaluate --list
  python -m trajvit_jax.llm.evaluate --benchmark=nextqa_mc --model=runs/videollm \
      --annotations test.csv --videos=NExTVideo --frames=16 --json=nextqa_mc.json
  python -m trajvit_jax.llm.evaluate --benchmark=activitynet_qa --model=runs/videollm \
      --annotations test_q.json test_a.json --videos=ActivityNet/all_test --judge="python judge.py"
  for n in 16 64 256 1024; do python -m trajvit_jax.llm.evaluate --benchmark=moviechat_global \
      --annotations=gt --videos=videos --model=runs/videollm --frames=$n --json=movie-$n.json; done

Each answer is written to a file at once (ANSWERS.jsonl beside the result), and the same command
goes on where it was stopped; with everything answered it only scores again, for example with a
--judge that was not at hand before. Questions whose video is not there are left out and named, and
the result says on how many of how many it was computed. Where the model failed to answer, or the
judge to mark, each number stands a second time with those questions counted as wrong: compare
models by that one.

docs/VIDEOQA.md has every benchmark: where to get it, prompt, metric, what the paper reports.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenization import exit_codes, interrupts
from tokenization.annotations.problems import AnnotationError
from tokenization.arguments import ArgumentParser
from trajvit_jax.confidence import LEVEL
from trajvit_jax.llm.answerers import DEVICES, HELP, fingerprint, load_answerer
from trajvit_jax.llm.answering import AnswerSettings
from trajvit_jax.llm.benchmarks import asking, registry, results
from trajvit_jax.llm.benchmarks.asking import Asked
from trajvit_jax.llm.benchmarks.contract import Annotations, Benchmark, Item
from trajvit_jax.llm.benchmarks.intervals import RESAMPLES
from trajvit_jax.llm.benchmarks.judge import Judge
from trajvit_jax.llm.benchmarks.lines_file import LinesFile
from trajvit_jax.llm.benchmarks.results import QuestionsResult
from trajvit_jax.llm.benchmarks.scores import Scored, Scores, score, with_failures
from trajvit_jax.llm.benchmarks.videos import Videos
from trajvit_jax.llm.benchmarks.wordnet import WordNet
from trajvit_jax.run.provenance import commit, versions

_MAX_FAILED = 0.05  # of the questions asked; with more the command ends as failed


def _parser() -> ArgumentParser:
    width = max(map(len, registry.BENCHMARKS))
    listed = "\n".join(f"  {one.name:{width}}  {one.files}" for one in _benchmarks())
    parser = ArgumentParser(
        prog="python -m trajvit_jax.llm.evaluate",
        description=__doc__,
        epilog=f"benchmarks, and what --annotations names:\n{listed}",
    )
    parser.add_argument("--list", action="store_true", help="print the benchmarks and end")
    parser.add_argument("--benchmark", metavar="NAME", help="one of the list below")
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        help="the benchmark's files, or their folder",
    )
    parser.add_argument(
        "--videos",
        metavar="FOLDER",
        type=Path,
        nargs="+",
        action="extend",
        help="folders of the videos, in any arrangement",
    )
    parser.add_argument("--model", help=HELP)
    parser.add_argument(
        "--frames",
        type=int,
        default=16,
        help="that the model reads of each video, 16 to 1024 (default: 16); 0: as it was trained",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="result (default: BENCHMARK-FRAMESf.json)"
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="answers (default: JSON.answers.jsonl)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="forget earlier answers, and verdicts on them"
    )
    parser.add_argument(
        "--rejudge", action="store_true", help="forget earlier verdicts, and keep the answers"
    )
    parser.add_argument(
        "--retry_failed",
        action="store_true",
        help="ask again what could not be answered, and about what the judge had an error",
    )
    parser.add_argument(
        "--judge",
        metavar="COMMAND",
        help="program that judges answers, see docs/VIDEOQA.md; it is asked about each answer once",
    )
    parser.add_argument(
        "--judge_patience",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="that a verdict may take (default: 120)",
    )
    parser.add_argument(
        "--wordnet",
        type=Path,
        metavar="PATH",
        help="for nextqa_oe: WordNet 3.0, as a folder or NLTK's wordnet.zip; without it there is "
        "only exact match",
    )
    parser.add_argument(
        "--batch", type=int, default=8, help="questions that are computed at once (default: 8)"
    )
    parser.add_argument("--devices", type=int, default=1, help=DEVICES)
    parser.add_argument("--most_tokens", type=int, help="of an answer (default: as lmms-eval)")
    parser.add_argument("--limit", type=int, help="only the first questions; the result says so")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (default: 0)")
    return parser


def _benchmarks() -> list[Benchmark]:
    return list(registry.BENCHMARKS.values())


def list_benchmarks() -> str:
    """The benchmarks as a table."""
    rows = [("name", "benchmark", "split", "lmms-eval task", "reported")]
    for one in _benchmarks():
        rows.append((one.name, one.title, one.split, one.task or "-", one.metrics[0].name))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _checked(options: argparse.Namespace) -> None:
    """Raises ValueError for options that are missing or make no sense."""
    for name in ("benchmark", "annotations", "videos", "model"):
        if not getattr(options, name):
            hint = " (--list shows the benchmarks)" if name == "benchmark" else ""
            raise ValueError(f"--{name} is missing{hint}; see --help")
    for name, least in (
        ("frames", 0),
        ("batch", 1),
        ("devices", 1),
        ("limit", 1),
        ("most_tokens", 1),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name}={value} must be at least {least}")
    if options.rejudge and not options.judge:
        raise ValueError("--rejudge asks a judge anew: name it by --judge")
    if not options.judge_patience > 0:
        raise ValueError(f"--judge_patience={options.judge_patience:g} must be more than 0")


def _found(
    annotations: Annotations, videos: Videos, limit: int | None
) -> tuple[list[Asked], list[dict[str, str]]]:
    """Questions with their videos, ordered so that those about one video follow each other.

    Raises:
      AnnotationError: there is no video of any question.
    """
    asked: list[Asked] = []
    missing = [_left_out(one.where, "", "unusable", one.reason) for one in annotations.unusable]
    paths: dict[tuple[str, ...], Path | None] = {}
    for item in annotations.items[:limit]:
        if item.videos not in paths:
            paths[item.videos] = videos.find(item)
        path = paths[item.videos]
        if path is None:
            reason = "its video is not there"
            missing.append(_left_out(item.id, item.videos[0], "missing", reason))
        else:
            asked.append(Asked(item, path))
    if not asked:
        names = ", ".join(annotations.items[0].videos)
        raise AnnotationError(
            f"--videos has no video of any question; that of the first is looked for as {names}"
        )
    return sorted(asked, key=lambda one: str(one.video)), missing


def _left_out(name: str, file: str, kind: str, reason: str) -> dict[str, str]:
    return {"id": name, "file": file, "kind": kind, "reason": reason}


def evaluate(options: argparse.Namespace, command: str) -> tuple[QuestionsResult, Benchmark]:
    """Asks, judges and scores.

    Raises:
      ValueError, OSError: as the parts say.
    """
    started = time.perf_counter()
    benchmark = _benchmark(options)
    annotations = benchmark.read(options.annotations)
    questions, missing = _found(annotations, Videos(options.videos), options.limit)
    settings = AnswerSettings(
        frames=options.frames,
        most_tokens=options.most_tokens or benchmark.most_tokens,
        stop=benchmark.stop,
    )
    checkpoint = fingerprint(options.model)
    of = {
        "benchmark": benchmark.name,
        "checkpoint": checkpoint,
        "frames": settings.frames,
        "most_tokens": settings.most_tokens,
        "stop": settings.stop,
    }
    # Where its files tell a model, it may lie anywhere; a function has but its name.
    model = {"model": options.model}
    note, of = (model, of) if checkpoint else ({}, model | of)
    path = options.answers or options.json.with_suffix(".answers.jsonl")
    if options.overwrite:
        path.unlink(missing_ok=True)
        _judged(path).unlink(missing_ok=True)
    answers = _answers(options, questions, settings, path, of, note)
    lines = [(one, answers[one.item.id]) for one in questions]
    answered = [(one, line["prediction"]) for one, line in lines if "prediction" in line]
    failed = [(one, line) for one, line in lines if "failed" in line]
    missing += [
        _left_out(one.item.id, str(one.video), "failed", line["failed"]) for one, line in failed
    ]
    verdicts = _verdicts(options, benchmark, answered, path, of, note) if options.judge else {}
    scored = [
        Scored(one.item, str(one.video), asking.marks_of(benchmark, one.item, reply, verdicts))
        for one, reply in answered
    ]
    scores = score(benchmark, scored, seed=options.seed)
    unanswered = [(one.item, str(one.video)) for one, _ in failed]
    result = QuestionsResult(
        dataset=benchmark.name,
        split=benchmark.split,
        metrics=scores.metrics,
        groups=scores.groups,
        with_failures=with_failures(
            benchmark,
            scored,
            unanswered,
            _marked(benchmark, questions[0].item, judged=bool(options.judge)),
            seed=options.seed,
        ),
        count=len(scored),
        of=len(annotations.items) + len(annotations.unusable),
        missing=missing,
        frames=settings.frames,
        model=options.model,
        checkpoint=checkpoint,
        judge=options.judge or "",
        settings={
            "most_tokens": settings.most_tokens,
            "stop": settings.stop,
            "seed": options.seed,
            "lmms_eval": "0.7.3",
        },
        notes={
            **annotations.notes,
            **_notes(benchmark, options, scores),
            **_without_video(len(questions), sum(one["kind"] == "missing" for one in missing)),
            **_unjudged(benchmark, answered, verdicts),
            **_failures([line["error"] for _, line in failed]),
            **_dropped([line.get("dropped", 0) for _, line in lines]),
        },
        interval=f"{LEVEL:.0%} bootstrap over videos, {RESAMPLES} draws",
        command=command,
        commit=commit(),
        versions=versions("numpy"),
        seconds=round(time.perf_counter() - started, 1),
    )
    return result, benchmark


def _marked(benchmark: Benchmark, item: Item, *, judged: bool) -> set[str]:
    """Names of the metrics that an answer has marks of, or would have if the judge gave them."""
    if judged:
        return {one.name for one in benchmark.metrics}
    return set(benchmark.marks(item, ""))


def _benchmark(options: argparse.Namespace) -> Benchmark:
    """Raises ValueError for options that the benchmark has no use for."""
    benchmark = registry.find(options.benchmark)
    if options.judge and benchmark.judging is None:
        raise ValueError(f"--judge: {benchmark.name} is scored by rules alone")
    if not options.wordnet:
        return benchmark
    if benchmark is not registry.NEXTQA_OPEN:
        raise ValueError(f"--wordnet is for nextqa_oe, not for {benchmark.name}")
    return registry.find(options.benchmark, wordnet=WordNet(options.wordnet))


def _answers(
    options: argparse.Namespace,
    questions: Sequence[Asked],
    settings: AnswerSettings,
    path: Path,
    of: dict[str, Any],
    note: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Answers by question, after those that lacked; the model is loaded for these alone."""
    with LinesFile(path, of, option="--answers", note=note) as file:
        todo = asking.pending(questions, file, retry=options.retry_failed)
        if todo:
            answerer = load_answerer(options.model, batch=options.batch, devices=options.devices)
            asking.ask_model(todo, answerer, settings, file, batch=options.batch)
        return file.lines


def _verdicts(
    options: argparse.Namespace,
    benchmark: Benchmark,
    answered: Sequence[tuple[Asked, str]],
    path: Path,
    of: dict[str, Any],
    note: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """The judge's verdicts by question."""
    settings = of | {"judge": options.judge}
    anew = "have this judge asked about all answers, which are kept, with --rejudge"
    # Before the file, so that a judge that cannot be started leaves no trace, and takes none away.
    with Judge(options.judge, patience=options.judge_patience) as judge:
        if options.rejudge:
            _judged(path).unlink(missing_ok=True)
        with LinesFile(_judged(path), settings, option="--answers", note=note, anew=anew) as file:
            pairs = [(one.item, reply) for one, reply in answered]
            asking.ask_judge(benchmark, pairs, judge, file, retry=options.retry_failed)
            return file.lines


def _judged(answers: Path) -> Path:
    return answers.with_suffix(".judged.jsonl")


def _notes(benchmark: Benchmark, options: argparse.Namespace, scores: Scores) -> dict[str, str]:
    notes = {}
    if options.limit is not None:
        notes["limit"] = f"only the first {options.limit:,} questions were asked"
    if benchmark.judging is not None and not options.judge:
        notes["judge"] = (
            "none: what rules alone can tell, which is no number to compare; see --judge"
            if benchmark.judging.needed
            else "none: answers that the rules cannot read count as wrong"
        )
    first = benchmark.metrics[0]
    if (there := len(scores.groups.get(first.each, {}))) < first.groups:
        notes["mean"] = (
            f"over {there} of {first.groups} {first.each}s, which is no number to compare"
        )
    if benchmark.name == registry.NEXTQA_OPEN.name and not options.wordnet:
        notes["wordnet"] = "none: exact match alone, no WUPS; see --wordnet"
    return notes


def _without_video(asked: int, missing: int) -> dict[str, str]:
    """A note on questions that were not asked."""
    if not missing:
        return {}
    return {
        "missing": f"{asked:,} of {asked + missing:,} questions asked, as the others' videos are "
        "not there: no number to compare"
    }


def _unjudged(
    benchmark: Benchmark,
    answered: Sequence[tuple[Asked, str]],
    verdicts: dict[str, dict[str, Any]],
) -> dict[str, str]:
    """A note on answers of which the judge said nothing but an error."""
    found = [
        one.item.id
        for one, reply in answered
        if "error" in asking.verdict_on(benchmark, one.item, reply, verdicts).get("reply", {})
    ]
    if not found:
        return {}
    return {
        "unjudged": f"{len(found):,} answers, such as {found[0]!r}, are wrong in with_failures "
        "and not in metrics; --retry_failed asks again"
    }


def _dropped(counts: Sequence[int]) -> dict[str, str]:
    """A note on trajectories that the model had no place for."""
    found = [count for count in counts if count]
    if not found:
        return {}
    return {
        "dropped": f"{sum(found):,} trajectories were not read, the smallest of {len(found):,} "
        "questions' videos, which have more than max_trajectories: see `dropped` of the answers"
    }


def _failures(errors: Sequence[str]) -> dict[str, str]:
    """A note on questions that the model failed to answer, by kind of error."""
    if not errors:
        return {}
    kinds = ", ".join(f"{name} {n:,}" for name, n in Counter(errors).most_common())
    return {"failed": f"{len(errors):,} questions ({kinds}); compare models by with_failures"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        print(list_benchmarks())
        return 0
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "trajvit_jax.llm.evaluate", *given])
    try:
        _checked(options)
        if options.json is None:
            options.json = Path(f"{options.benchmark}-{options.frames}f.json")
        result, benchmark = evaluate(options, command)
        result.write(options.json)
    except KeyboardInterrupt:
        interrupts.leave("interrupted; run the same command again to go on")
    except (ValueError, OSError) as error:
        return exit_codes.tell(error)
    print(results.table(result, benchmark))
    print(f"wrote {options.json}")
    failed, asked = len(result.failed), result.count + len(result.failed)
    if failed > _MAX_FAILED * asked:
        print(
            f"error: {failed:,} of {asked:,} questions could not be answered; see `missing` in "
            f"{options.json}",
            file=sys.stderr,
        )
        return exit_codes.FAILED
    return 0


if __name__ == "__main__":
    interrupts.install("stopping; answers are kept")
    sys.exit(main())

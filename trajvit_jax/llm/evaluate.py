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
the result says on how many of how many it was computed.

docs/VIDEOQA.md has every benchmark: where to get it, prompt, metric, what the paper reports.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenization import interrupts
from tokenization.annotations.problems import AnnotationError
from trajvit_jax.llm.answerers import HELP, fingerprint, load_answerer
from trajvit_jax.llm.answering import AnswerSettings
from trajvit_jax.llm.benchmarks import asking, registry, results
from trajvit_jax.llm.benchmarks.asking import Asked
from trajvit_jax.llm.benchmarks.contract import Annotations, Benchmark
from trajvit_jax.llm.benchmarks.intervals import LEVEL, RESAMPLES
from trajvit_jax.llm.benchmarks.judge import Judge
from trajvit_jax.llm.benchmarks.lines_file import LinesFile
from trajvit_jax.llm.benchmarks.results import Result
from trajvit_jax.llm.benchmarks.scores import Scored, score
from trajvit_jax.llm.benchmarks.videos import Videos
from trajvit_jax.llm.benchmarks.wordnet import WordNet

_MAX_FAILED = 0.05  # of the questions asked; with more the command ends as failed


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, registry.BENCHMARKS))
    listed = "\n".join(f"  {one.name:{width}}  {one.files}" for one in _benchmarks())
    parser = argparse.ArgumentParser(
        prog="python -m trajvit_jax.llm.evaluate",
        description=__doc__,
        epilog=f"benchmarks, and what --annotations names:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
    parser.add_argument("--overwrite", action="store_true", help="forget earlier answers")
    parser.add_argument(
        "--retry_failed",
        "--retry-failed",
        action="store_true",
        help="ask again what could not be answered",
    )
    parser.add_argument(
        "--judge",
        metavar="COMMAND",
        help="program that judges answers, see docs/VIDEOQA.md; it is asked about each answer once",
    )
    parser.add_argument(
        "--judge_patience",
        "--judge-patience",
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
        "--batch", type=int, default=8, help="questions that the model gets at once (default: 8)"
    )
    parser.add_argument(
        "--most_tokens", "--most-tokens", type=int, help="of an answer (default: as lmms-eval)"
    )
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
    for name, least in (("frames", 0), ("batch", 1), ("limit", 1), ("most_tokens", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name}={value} must be at least {least}")
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
    missing = [{"id": one.where, "file": "", "reason": one.reason} for one in annotations.unusable]
    paths: dict[tuple[str, ...], Path | None] = {}
    for item in annotations.items[:limit]:
        if item.videos not in paths:
            paths[item.videos] = videos.find(item)
        path = paths[item.videos]
        if path is None:
            reason = "its video is not there"
            missing.append({"id": item.id, "file": item.videos[0], "reason": reason})
        else:
            asked.append(Asked(item, path))
    if not asked:
        names = ", ".join(annotations.items[0].videos)
        raise AnnotationError(
            f"--videos has no video of any question; that of the first is looked for as {names}"
        )
    return sorted(asked, key=lambda one: str(one.video)), missing


def evaluate(options: argparse.Namespace, command: str) -> tuple[Result, Benchmark]:
    """Asks, judges and scores.

    Raises:
      ValueError, OSError: as the parts say.
    """
    started = time.perf_counter()
    benchmark = _benchmark(options)
    annotations = benchmark.read(options.annotations)
    questions, missing = _found(annotations, Videos(options.videos), options.limit)
    settings = AnswerSettings(
        frames=options.frames, most_tokens=options.most_tokens or benchmark.most_tokens
    )
    checkpoint = fingerprint(options.model)
    of = {
        "benchmark": benchmark.name,
        "model": options.model,
        "checkpoint": checkpoint,
        "frames": settings.frames,
        "most_tokens": settings.most_tokens,
    }
    path = options.answers or options.json.with_suffix(".answers.jsonl")
    if options.overwrite:
        for file in (path, _judged(path)):
            file.unlink(missing_ok=True)
    answers = _answers(options, questions, settings, path, of)
    answered = []
    for one in questions:
        line = answers[one.item.id]
        if "prediction" in line:
            answered.append((one, line["prediction"]))
        else:
            missing.append({"id": one.item.id, "file": str(one.video), "reason": line["failed"]})
    verdicts = _verdicts(options, benchmark, answered, path, of) if options.judge else {}
    scored = [
        Scored(one.item, str(one.video), asking.marks_of(benchmark, one.item, reply, verdicts))
        for one, reply in answered
    ]
    scores = score(benchmark, scored, seed=options.seed)
    result = Result(
        dataset=benchmark.name,
        split=benchmark.split,
        metrics=scores.metrics,
        groups=scores.groups,
        count=len(scored),
        of=len(annotations.items) + len(annotations.unusable),
        missing=missing,
        frames=settings.frames,
        model=options.model,
        checkpoint=checkpoint,
        judge=options.judge or "",
        settings={"most_tokens": settings.most_tokens, "seed": options.seed, "lmms_eval": "0.7.3"},
        notes=_notes(benchmark, options, verdicts, scored),
        interval=f"{LEVEL:.0%} bootstrap over videos, {RESAMPLES} draws",
        command=command,
        commit=results.commit(),
        versions=results.versions(),
        seconds=round(time.perf_counter() - started, 1),
    )
    return result, benchmark


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
) -> dict[str, dict[str, Any]]:
    """Answers by question, after those that lacked; the model is loaded for these alone."""
    with LinesFile(path, of, option="--answers") as file:
        todo = asking.pending(questions, file, retry=options.retry_failed)
        if todo:
            answerer = load_answerer(options.model)
            asking.ask_model(todo, answerer, settings, file, batch=options.batch)
        return file.lines


def _verdicts(
    options: argparse.Namespace,
    benchmark: Benchmark,
    answered: Sequence[tuple[Asked, str]],
    path: Path,
    of: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """The judge's verdicts by question."""
    settings = of | {"judge": options.judge}
    with LinesFile(_judged(path), settings, option="--answers") as file:
        with Judge(options.judge, patience=options.judge_patience) as judge:
            pairs = [(one.item, reply) for one, reply in answered]
            asking.ask_judge(benchmark, pairs, judge, file)
        return file.lines


def _judged(answers: Path) -> Path:
    return answers.with_suffix(".judged.jsonl")


def _notes(
    benchmark: Benchmark,
    options: argparse.Namespace,
    verdicts: dict[str, dict[str, Any]],
    scored: Sequence[Scored],
) -> dict[str, str]:
    notes = {}
    if options.limit is not None:
        notes["limit"] = f"only the first {options.limit:,} questions were asked"
    if benchmark.judging is not None and not options.judge:
        notes["judge"] = (
            "none: exact match alone, which is no number to compare; see --judge"
            if benchmark.judging.needed
            else "none: answers that the rules cannot read count as wrong"
        )
    unjudged = [
        one.item.id for one in scored if "error" in verdicts.get(one.item.id, {}).get("reply", {})
    ]
    if unjudged:
        notes["unjudged"] = f"{len(unjudged):,} answers, such as {unjudged[0]!r}"
    if benchmark.name == registry.NEXTQA_OPEN.name and not options.wordnet:
        notes["wordnet"] = "none: exact match alone, no WUPS; see --wordnet"
    return notes


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
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(results.table(result, benchmark))
    print(f"wrote {options.json}")
    failed = [one for one in result.missing if one["file"] and "not there" not in one["reason"]]
    if len(failed) > _MAX_FAILED * (result.count + len(failed)):
        print(
            f"error: {len(failed):,} of {result.count + len(failed):,} questions could not be "
            f"answered; see `missing` in {options.json}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    interrupts.install("stopping; answers are kept")
    sys.exit(main())

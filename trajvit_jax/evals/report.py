r"""Results of several runs side by side, beside the paper's numbers.

  python -m trajvit_jax.evals.report runs/panda4m runs/panda4m_vit3d
  python -m trajvit_jax.evals.report runs/*/evals/retrieval-*.json --output=results.md
  python -m trajvit_jax.evals.report runs/a runs/b --differences     # which is better, how surely

A RUN is a workdir, whose `evals` folder holds results, or a result itself. The paper's number is
shown where it has one of the same protocol, dataset, metric, tokenization, size, ablation and
training data (by the names of the folders: panda4m; of weights of other programs, which do not say,
those of all), with which settings were others: what was measured in another way (MSR-VTT's 1k-A,
other frames, dual softmax, trajectories by other programs) is not comparable, and the table says
so.
Settings in which the results of a dataset differ (prompts, epochs) have a column of their own.
Runs that differ only in the seed of their training are one line: their mean, the mean of their 95%
intervals (the interval of the mean is no wider), and the lowest and highest.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenization import exit_codes
from tokenization.arguments import ArgumentParser
from tokenization.files import write_text
from tokenization.markdown import markdown_table
from trajvit_jax.evals import differences
from trajvit_jax.evals.cut import papers_cut
from trajvit_jax.evals.paper import numbers, settings_of
from trajvit_jax.evals.results import Result, Value, read_result

_SPLIT = "test"  # what every config of configs/eval calls the split of the paper's numbers
_NOT_ALIKE = (
    "No two models were measured alike on the same records: there is no difference to tell "
    "(results of earlier versions did not keep their samples)."
)


def find_results(places: Iterable[str]) -> list[tuple[Path, Result]]:
    """All results below workdirs, and those named, in order.

    Raises:
      FileNotFoundError: a place that holds none.
      ValueError: a file that is no result.
    """
    found = []
    for place in places:
        path = Path(place)
        files = sorted((path / "evals").glob("*.json")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise FileNotFoundError(
                f"{place} holds no results: run python -m trajvit_jax.evals.PROTOCOL "
                f"--workdir={place} first"
            )
        found += [(file, read_result(file)) for file in files]
    return found


def rows(results: Sequence[tuple[Path, Result]]) -> list[dict[str, str]]:
    """A row for each metric of each evaluation; seeds of one training are one.

    Of a checkpoint that was measured several times alike, the newest file counts.

    Raises:
      ValueError: a file that is named twice.
    """
    groups: dict[tuple[object, ...], dict[str, tuple[Path, Result]]] = {}
    for path, one in sorted(results, key=_age):
        key = (
            *(one.protocol, one.dataset, one.split, one.model, one.frames, one.views, one.step),
            *(one.records, tuple(one.train_records), one.fingerprint, one.training),
            tuple(sorted((name, str(value)) for name, value in one.decisive.items())),
        )
        of_checkpoints = groups.setdefault(key, {})
        if one.checkpoint in of_checkpoints and of_checkpoints[one.checkpoint][0] == path:
            raise ValueError(
                f"{path}, of checkpoint {one.checkpoint}, comes twice for {one.protocol} on "
                f"{one.dataset}: name each result once"
            )
        of_checkpoints[one.checkpoint] = (path, one)
    made = []
    together = [[one for _, one in of_checkpoints.values()] for of_checkpoints in groups.values()]
    apart = _set_apart([own[0] for own in together])
    for own in together:
        first = own[0]
        for name, metric in first.metrics.items():
            values = [one.metrics[name] for one in own if name in one.metrics]
            made.append(
                {
                    "protocol": first.protocol,
                    "dataset": f"{first.dataset}, {first.split}",
                    "model": _named(first),
                    "trained on": ", ".join(Path(p).name for p in first.train_records) or "?",
                    "step": "-" if first.step is None else str(first.step),
                    "frames x views": f"{_frames_of(first, name)} x {first.views}",
                    **({"settings": _told(first, apart)} if apart else {}),
                    "seeds": str(len(own)),
                    "n of m": " of ".join(
                        _range([getattr(one, name) for one in own]) for name in ("count", "of")
                    ),
                    "metric": name,
                    "value": str(metric) if len(own) == 1 else _over_seeds(values),
                    "paper": paper_of(first, name),
                }
            )
    return made


def _named(result: Result) -> str:
    """The model, and the ablation that it is where that has a name."""
    ablation = result.ablation or "none"
    return result.model if ablation in ("none", "other") else f"{result.model}, {ablation}"


def _set_apart(firsts: Sequence[Result]) -> Mapping[tuple[str, str], list[str]]:
    """By protocol and dataset, the settings that are not the same in all that was measured."""
    values: dict[tuple[str, str], dict[str, set[str]]] = {}
    for one in firsts:
        of_kind = values.setdefault((one.protocol, one.dataset), {})
        for name, value in one.decisive.items():
            of_kind.setdefault(name, set()).add(str(value))
    found = {
        kind: [name for name, said in of_kind.items() if len(said) > 1]
        for kind, of_kind in values.items()
    }
    return {kind: names for kind, names in found.items() if names}


def _told(result: Result, apart: Mapping[tuple[str, str], Sequence[str]]) -> str:
    names = apart.get((result.protocol, result.dataset), ())
    own = result.decisive
    told = [f"{name} {own[name] or repr(own[name])}" for name in names if name in own]
    return ", ".join(told) or "-"


def _frames_of(result: Result, metric: str) -> str:
    """Of scaling, whose metrics are like '32/txt2vid_r5', those that the metric is of."""
    return metric.partition("/")[0] if result.protocol == "scaling" else str(result.frames)


def _age(found: tuple[Path, Result]) -> float:
    return found[0].stat().st_mtime if found[0].is_file() else 0.0


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _over_seeds(values: Sequence[Value]) -> str:
    known = [one.value for one in values if one.value is not None]
    if not known:
        return "-"
    ends = [(one.low, one.high) for one in values if one.low is not None and one.high is not None]
    within = ""
    if len(ends) == len(values):
        low, high = map(statistics.mean, zip(*ends, strict=True))
        within = f"{low:.1f} to {high:.1f}; "
    spread = f"{statistics.mean(known):.2f} ({within}seeds {min(known):.1f} to {max(known):.1f})"
    return spread if len(known) == len(values) else f"{spread}, of {len(known)} seeds"


def paper_of(result: Result, metric: str) -> str:
    """The paper's numbers of the same kind, with what those models were trained on."""
    same = (result.protocol, result.dataset, metric)
    own = frozenset(Path(path).name for path in result.train_records)
    # Results of earlier versions do not say what size they are of; weights of other programs not
    # what they were trained on, and they may depart from the paper as their program does.
    size, ablation = result.size or "L", (result.ablation or "none") if own else "none"
    rows_of = [
        one
        for one in numbers()
        if (one.protocol, one.dataset, one.metric) == same
        and one.run == (result.model, size, ablation)
        and (not own or one.records == own)
        and one.value is not None
    ]
    found = [f"{one.value:g} ({one.training}, {one.place})" for one in rows_of]
    return "; ".join(dict.fromkeys([*found, *(_other_settings(result) if found else [])])) or "-"


def _other_settings(result: Result) -> list[str]:
    """What was measured in another way than the paper's numbers: no number to compare."""
    own = {**result.settings, "frames": result.frames, "views": result.views}
    found = [
        f"{name} {own[name]}, the paper's {value}"
        for name, value in settings_of(result.protocol, result.dataset).items()
        if name in own and own[name] != value
    ]
    if result.split != _SPLIT:
        found.append(f"split {result.split}, the paper's is {_SPLIT!r} in configs/eval")
    papers = papers_cut(result.ablation)
    for what, cut in (("trajectories", result.cut), ("trajectories of training", result.train_cut)):
        if cut and cut != papers:
            found.append(f"{what} by {cut}, the paper's {papers}")
    return found


def table(made: Sequence[dict[str, str]]) -> str:
    """Rows as a Markdown table."""
    names = list(made[0])
    return markdown_table(names, [[row[n] for n in names] for row in made], left=len(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = ArgumentParser(
        prog="python -m trajvit_jax.evals.report",
        description=__doc__,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="workdirs, or files of results")
    parser.add_argument("--output", type=Path, help="also write the table here, as Markdown")
    parser.add_argument("--metric", nargs="*", help="only these metrics, as txt2vid_r5")
    parser.add_argument(
        "--differences",
        action="store_true",
        help="also each model less each other one that was measured alike, with a 95%% interval "
        "(paired bootstrap over the same samples)",
    )
    options = parser.parse_args(arguments)
    try:
        results = find_results(options.runs)
        made = rows(results)
        if options.metric:
            made = [row for row in made if row["metric"] in options.metric]
            if not made:
                raise ValueError(f"no result has the metric {', '.join(options.metric)}")
        gone = [
            f"{one.protocol} on {one.dataset}: {len(one.missing)} of {one.of} are missing, the "
            f"first {one.missing[0]['id']!r}: {one.missing[0]['reason']}"
            for _, one in results
            if one.missing
        ]
        parts = [table(made), *dict.fromkeys(gone)]
        if options.differences:
            found = [
                one
                for one in differences.differences(
                    [result for _, result in sorted(results, key=_age)]
                )
                if not options.metric or one.metric in options.metric
            ]
            parts.append(differences.table(found) or _NOT_ALIKE)
        text = "\n\n".join(parts)
        print(text)
        if options.output is not None:
            write_text(options.output, text + "\n")
    except (ValueError, OSError) as error:
        return exit_codes.tell(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

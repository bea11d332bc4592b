"""Retrieval of TrajViT and ViT3D on the procedural world, over seeds, against chance.

Both models train on the same clips for the same number of steps. Records are made once, and
finished runs are kept in --output, so that an interrupted benchmark goes on.

  python -m benchmarks.demo_retrieval                 # 3 seeds, about a quarter of an hour
  python -m benchmarks.demo_retrieval --quick         # one seed, few clips and steps: it runs
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from trajvit_jax.demo.__main__ import make_records, train_models
from trajvit_jax.demo.report import TITLES, ModelRow

_WAYS = ("txt2vid", "vid2txt")


def measure(output: Path, seeds: int, *, quick: bool) -> list[dict[str, object]]:
    """One row a model: tokens, R@5 of every seed, and the smallest ratio to chance."""
    data, steps = "configs/tokenization/demo.py", None
    if quick:
        data, steps = f"{data}:train=32,test=16", 3
    make_records(data, output)
    runs: dict[str, list[ModelRow]] = {}
    for seed in range(seeds):
        for row in train_models("configs/demo.py", output, seed, steps):
            runs.setdefault(row.name, []).append(row)
    return [_summary(rows) for rows in runs.values()]


def _summary(rows: list[ModelRow]) -> dict[str, object]:
    videos = rows[0].results["videos"]
    chance = 100 * min(1.0, 5 / videos)
    recalls = [row.results[f"{way}_r5"] for row in rows for way in _WAYS]
    return {
        "model": TITLES[rows[0].name],
        "held-out clips": int(videos),
        "steps": rows[0].steps,
        "tokens a video": round(rows[0].tokens, 1),
        "dropped a video": round(rows[0].dropped, 2),
        "txt2vid R@5": [round(row.results["txt2vid_r5"], 1) for row in rows],
        "vid2txt R@5": [round(row.results["vid2txt_r5"], 1) for row in rows],
        "mean R@5": round(statistics.fmean(recalls), 1),
        "chance": round(chance, 1),
        "worst / chance": round(min(recalls) / chance, 1),
    }


def main() -> int:
    """Prints the table; returns 0 if the bounds hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, three steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=None, help="folder of records and runs")
    parser.add_argument("--json", type=Path, default=None, help="also write the rows here")
    options = parser.parse_args()
    name = "demo_retrieval_quick" if options.quick else "demo_retrieval"
    output = options.output or Path("runs") / name
    rows = measure(output, 1 if options.quick else options.seeds, quick=options.quick)
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
    ratio = float(rows[1]["tokens a video"]) / max(1.0, float(rows[0]["tokens a video"]))
    print(f"TrajViT reads {ratio:.1f}x fewer tokens")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if options.quick:
        print("three steps teach nothing: the verdict needs the full run")
        return 0
    bounds = {
        "at least 100 held-out clips": all(int(row["held-out clips"]) >= 100 for row in rows),
        "R@5 at least 5x chance, both ways, every seed": all(
            float(row["worst / chance"]) >= 5 for row in rows
        ),
        "at least 3x fewer tokens": ratio >= 3,
    }
    for name, holds in bounds.items():
        print(f"{'holds' if holds else 'FAILS'}: {name}")
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""How well trajectories follow objects: the procedural world with its ground truth, and DAVIS.

  python -m benchmarks.tokenization_quality            # 40 world clips, and DAVIS where it is
  python -m benchmarks.tokenization_quality --quick    # 6 clips, 2 DAVIS sequences, no verdict

World: for each object, the IoU of its space-time tube with the best-matching trajectory, over
all frames of the video; and its identity switches: how often the trajectory that covers most of
it is another one than in the frame before in which any pixel of it was seen. DAVIS (the folder
`davis` in $TRAJVIT_TEST_DATA: SEQUENCE/frames, SEQUENCE/masks): mean IoU (J) over the frames
after the first of 16, of the first frame's mask followed by the tracker ("mask"), and of the
trajectories that lie in it for the most part ("parts").
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.tracking_metrics import (
    coverage,
    identity_switches,
    jaccard,
    overlaps,
    tube_ious,
)
from tokenization import pipeline, video
from tokenization.manifest import read_entries
from tokenization.protocols import Clip
from tokenization.recorder import ExtractSettings
from tokenization.world import WorldSettings, load_truth, write_split
from trajvit_jax import config

WORLD = "configs/tokenization/world_quality.py"
ENOUGH = 30  # clips that a verdict needs
BOUNDS = {"iou": 0.7, "switches": 1.0, "trajectories": 200, "coverage": 0.95}


def measure_world(
    world: str, settings: pipeline.PipelineSettings, clips: int | None, folder: Path
) -> dict[str, int | float]:
    """Renders, encodes, decodes and tokenizes the world's clips; returns the averages."""
    chosen: Any = config.load(world)
    tokenizer = pipeline.build(settings)
    manifest = write_split(
        folder,
        chosen.split,
        clips or chosen.clips,
        config.to_settings(WorldSettings, chosen.world, "world"),
        seed=chosen.seed,
    )
    entries = read_entries(manifest)
    ious, switches, counts, covered, cuts, seconds = [], [], [], [], 0, 0.0
    for entry in tqdm(entries, desc="world", unit="clip"):
        frames = video.decode(entry.path, frames=settings.frames, max_side=settings.max_side)
        begin = time.perf_counter()
        trajectories = tokenizer.tokenize(frames)
        seconds += time.perf_counter() - begin
        truth = load_truth(manifest.parent / str(entry.extra["truth"]))
        shared = overlaps(trajectories.labels, truth.labels[frames.indices])
        seen = shared.sum((0, 2))[1:] > 0
        ious.append(tube_ious(shared)[seen])
        switches.append(identity_switches(shared)[seen])
        counts.append(len(trajectories))
        covered.append(coverage(trajectories.labels))
        cuts += len(truth.cuts)
    iou = np.concatenate(ious)
    return {
        "clips": len(entries),
        "cuts": cuts,
        "objects": iou.size,
        "iou": float(iou.mean()),
        "iou_above_half": float((iou > 0.5).mean()),
        "switches": float(np.concatenate(switches).mean()),
        "trajectories_mean": float(np.mean(counts)),
        "trajectories": int(np.max(counts)),
        "coverage": float(np.min(covered)),
        "seconds": seconds,
    }


def read_davis(sequence: Path, settings: pipeline.PipelineSettings) -> tuple[np.ndarray, ...]:
    """Frames uint8[t,h,w,3] and object masks bool[t,h,w] of one sequence, sampled and resized."""
    files = sorted((sequence / "frames").iterdir())
    masks = sorted((sequence / "masks").iterdir())
    index = video.sample_indices(len(files), settings.frames)
    rgb = [video.decode(files[i]).rgb[0] for i in index]
    scale = settings.max_side / max(rgb[0].shape[:2])
    size = (round(rgb[0].shape[1] * scale), round(rgb[0].shape[0] * scale))
    truth = [video.decode(masks[i]).rgb[0, ..., 0] for i in index]
    return (
        np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in rgb]),
        np.stack([cv2.resize(m, size, interpolation=cv2.INTER_NEAREST) > 127 for m in truth]),
    )


def measure_davis(
    root: Path, settings: pipeline.PipelineSettings, sequences: int | None
) -> dict[str, dict[str, float]]:
    """J of each sequence, as one mask and by its parts."""
    tokenizer = pipeline.build(settings)
    rows = {}
    folders = sorted(path for path in root.iterdir() if (path / "frames").is_dir())
    for folder in tqdm(folders[:sequences], desc="DAVIS", unit="sequence"):
        rgb, truth = read_davis(folder, settings)
        mask = np.where(truth[0], 1, 2).astype(np.int32)
        followed = tokenizer.tracker.track([Clip(rgb, {0: mask})])[0] == 1
        parts = tokenizer.segmenter.segment(rgb[:1])[0]
        inside = np.bincount(parts[truth[0]], minlength=parts.max() + 1)
        chosen = np.flatnonzero(inside > np.bincount(parts.reshape(-1)) / 2)
        tracked = tokenizer.tracker.track([Clip(rgb, {0: parts})])[0]
        rows[folder.name] = {
            "mask": jaccard(followed, truth),
            "parts": jaccard(np.isin(tracked, chosen), truth),
            "trajectories": int(np.unique(tracked).size),
            "a_frame": float(np.mean([np.unique(frame).size for frame in tracked])),
        }
    return rows


def verdict(world: dict[str, int | float]) -> bool | None:
    """Whether the bounds of the world hold; None for too few clips to tell."""
    if world["clips"] < ENOUGH:
        return None
    return (
        world["iou"] >= BOUNDS["iou"]
        and world["switches"] < BOUNDS["switches"]
        and world["trajectories"] <= BOUNDS["trajectories"]
        and world["coverage"] > BOUNDS["coverage"]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit code is 1 where a bound does not hold, 0 without a verdict."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokenization_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few clips, a minute; no verdict")
    parser.add_argument("--json", type=Path, help="write all numbers to this file, too")
    parser.add_argument("--config", default=WORLD, help=f"the world ({WORLD})")
    tokenizer = "configs/tokenization/classical.py"
    parser.add_argument("--tokenizer", default=tokenizer, help=f"the pipeline ({tokenizer})")
    args = parser.parse_args(argv)
    chosen = config.load(args.tokenizer)
    settings = config.to_settings(ExtractSettings, chosen, "tokenizer").pipeline
    with tempfile.TemporaryDirectory() as folder:
        world = measure_world(args.config, settings, 6 if args.quick else None, Path(folder))
    print(f"\nprocedural world ({args.config}), {settings.segmenter} + {settings.tracker}")
    for name, value in world.items():
        print(f"  {name:18} {value:8.3f}" if isinstance(value, float) else f"  {name:18} {value:8}")
    holds = verdict(world)
    said = {
        True: "hold",
        False: "DO NOT HOLD",
        None: f"no verdict on {world['clips']} clips, it needs the full run ({ENOUGH} or more)",
    }
    print(f"  bounds {BOUNDS}: {said[holds]}")
    results: dict[str, Any] = {
        "world": world,
        "bounds_hold": holds,
        "settings": dataclasses.asdict(settings),
    }
    davis = Path(os.environ.get("TRAJVIT_TEST_DATA", "")) / "davis"
    if "TRAJVIT_TEST_DATA" in os.environ and davis.is_dir():
        rows = results["davis"] = measure_davis(davis, settings, 2 if args.quick else None)
        rows["mean"] = {
            k: float(np.mean([r[k] for r in rows.values()])) for k in rows[next(iter(rows))]
        }
        print("\nDAVIS, J of frames 2-16      mask  parts  trajectories  a frame")
        for name, row in rows.items():
            print(
                f"{name:24} {row['mask']:6.3f} {row['parts']:6.3f} "
                f"{row['trajectories']:13.0f} {row['a_frame']:8.1f}"
            )
    else:
        print("\nDAVIS: skipped, $TRAJVIT_TEST_DATA has no folder davis")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if holds is False else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""python -m tokenization.world: writes the procedural captioned world to a folder."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import typing

from tokenization import exit_codes
from tokenization.arguments import ArgumentParser
from tokenization.world.dataset import SPLITS, write_split
from tokenization.world.scenes import WorldSettings

_EXAMPLES = """examples:
  600 training and 120 test videos of 128x128, 16 frames, about half a minute:
    python -m tokenization.world --output=data/world --train=600 --test=120
  harder: larger, more objects, faster camera, a cut in every third video:
    python -m tokenization.world --output=data/hard --train=0 --test=40 --width=256 --height=256 \\
      --min-objects=3 --max-objects=5 --camera-pan=0.02 --cut-probability=0.3
  then, from videos to trajectories:
    python -m tokenization.extract --input=data/world/train/manifest.jsonl --output=data/records

A second run with the same settings writes only what is missing.
"""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m tokenization.world",
        description="Write short captioned H.264 videos of moving shapes, with ground truth.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--output", required=True, help="folder of the train and test splits")
    parser.add_argument("--train", type=int, default=600, help="training videos (600)")
    parser.add_argument("--test", type=int, default=120, help="test videos (120)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other videos (0)")
    group = parser.add_argument_group(
        "the world", "lengths are fractions of the shorter side; see WorldSettings"
    )
    hints = typing.get_type_hints(WorldSettings)
    described = dict(
        re.findall(r"^  (\w+): (.+?)\.$", inspect.getdoc(WorldSettings) or "", re.M | re.S)
    )
    for field in dataclasses.fields(WorldSettings):
        flag = f"--{field.name.replace('_', '-')}"
        told = f"{' '.join(described[field.name].split())} (%(default)s)"
        if hints[field.name] is bool:
            switch = argparse.BooleanOptionalAction
            group.add_argument(flag, action=switch, default=field.default, help=told)
            continue
        if hints[field.name] in (int, float):
            kind, nargs = hints[field.name], None
        else:
            kind, nargs = float, len(field.default)  # type: ignore[arg-type]
        group.add_argument(
            flag,
            type=kind,
            nargs=nargs,
            default=field.default,
            metavar=kind.__name__.upper(),
            help=told,
        )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(WorldSettings)}
    values["sizes"] = tuple(values["sizes"])
    try:
        settings = WorldSettings(**values)
        for split in SPLITS:
            manifest = write_split(
                args.output, split, getattr(args, split), settings, seed=args.seed
            )
            print(manifest)
    except (ValueError, OSError) as error:
        return exit_codes.tell(error)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

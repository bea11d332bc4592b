"""Looks at trajectories: `python -m tokenization.explore DIR_OR_VIDEO --output=OUT.html`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenization import exit_codes
from tokenization.arguments import ArgumentParser
from tokenization.explore.items import Item, read_records, tokenize_file
from tokenization.frames_asked import asking_for
from tokenization.summary import count

_DESCRIPTION = """\
Shows videos beside their trajectories.

The suffix of --output says what is written:
  .html   one page that needs no network: scrub, play, hover, pin (several videos)
  .mp4    a movie, the video on the left, its trajectories on the right (one video)
  .png    a contact sheet, frames above, trajectories below (one video)
"""

_EXAMPLES = """\
examples:
  python -m tokenization.explore records/ --output=look.html --max_videos=20
  python -m tokenization.explore records/ --output=clip.png --video=clip-0042
  python -m tokenization.explore holiday.mp4 --output=holiday.html
  python -m tokenization.explore holiday.mp4 --output=holiday_trajectories.mp4 \\
      --config=configs/tokenization/classical.py
"""


def _path(text: str) -> Path:
    if not text.strip():  # else it would be the current folder
        raise argparse.ArgumentTypeError(exit_codes.EMPTY)
    return Path(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="python -m tokenization.explore",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "input",
        metavar="DIR_OR_VIDEO",
        type=_path,
        help="a folder written by tokenization.extract, or a video (or image) file",
    )
    parser.add_argument("--output", type=_path, required=True, help="OUT.html, OUT.mp4 or OUT.png")
    parser.add_argument("--split", default="train", help="split of the folder (default: train)")
    parser.add_argument("--video", metavar="ID", help="only the video of this id in the folder")
    parser.add_argument(
        "--max_videos", type=int, default=12, help="videos on a page at most (default: 12)"
    )
    parser.add_argument(
        "--config",
        metavar="FILE.py[:ARG]",
        help="how to find the trajectories of a video file, as in tokenization.extract",
    )
    parser.add_argument(
        "--size", type=int, default=512, help="longer side on a page, in pixels (default: 512)"
    )
    options = parser.parse_args(arguments)
    if options.max_videos < 1 or options.size < 16:
        parser.error("--max_videos must be at least 1 and --size at least 16")
    return options


def _load(options: argparse.Namespace) -> list[Item]:
    path: Path = options.input
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; give a video file, or a folder that "
            "`python -m tokenization.extract` wrote"
        )
    if path.suffix == ".npz":
        raise ValueError(
            f"{path} holds trajectories without their frames; give the video itself, or a "
            "folder of records, which keeps both"
        )
    if path.is_dir():
        one = options.output.suffix != ".html"
        return read_records(
            path,
            split=options.split,
            max_videos=1 if one else options.max_videos,
            video=options.video,
        )
    return [tokenize_file(path, config=options.config)]


def _write(options: argparse.Namespace, items: Sequence[Item]) -> None:
    if options.output.suffix == ".html":
        from tokenization.explore.page import write_page

        write_page(options.output, items, longest=options.size)
    elif options.output.suffix == ".mp4":
        from tokenization.explore.movie import write_movie

        write_movie(options.output, items[0])
    else:
        from tokenization.explore.sheet import write_sheet

        write_sheet(options.output, items[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parse(arguments)
    try:
        if options.output.suffix not in (".html", ".mp4", ".png"):
            raise ValueError(f"--output={options.output} must end in .html, .mp4 or .png")
        if options.output.resolve() == options.input.resolve():
            raise ValueError(f"--output={options.output} would overwrite the input; rename it")
        items = _load(options)
        _write(options, items)
    except (OSError, ValueError) as error:
        return exit_codes.tell(error, by="tokenization.explore")
    except KeyboardInterrupt:
        return 130
    names = items[0].trajectories.video.id if len(items) == 1 else f"{len(items)} videos"
    tokens = sum(len(item.trajectories) for item in items)
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {names}, {tokens:,} trajectories, {size:.1f} MB")
    for item in items:
        if item.repeated:
            trajectories = item.trajectories
            stored = len(trajectories.frame_times) - item.repeated
            print(
                f"{trajectories.video.id}: {count(stored, 'frame')} of its own, the last one is "
                f"repeated {count(item.repeated, 'time')}"
                + ("" if options.input.is_dir() else f"; {asking_for(options.config, stored)}")
            )
        if item.damaged:
            print(
                f"{item.trajectories.video.id}: {count(item.damaged, 'frame')} damaged, passed "
                "over or decoded in part; copy or download it again"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

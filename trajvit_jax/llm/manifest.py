r"""Conversations -> a manifest of their videos, each once, to be cut into trajectories.

Example, with LLaVA-Video-178K as it is published:
  python -m trajvit_jax.llm.manifest --output=llava_video.jsonl --media=LLaVA-Video-178K \
      LLaVA-Video-178K/0_30_s_academic_v0_1/*.json
  python -m tokenization.extract --input=llava_video.jsonl --output=data/llava_video

A record's id is the path of its video without the suffix, by which training finds it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from tokenization import exit_codes, interrupts
from tokenization.arguments import ArgumentParser
from tokenization.files import write_text
from trajvit_jax.llm.conversation import read_conversations
from trajvit_jax.llm.names import record_id

_MOST_NAMES = 3


def write_manifest(
    files: Sequence[Path], media: Path, output: Path, *, max_bad: float = 0.0
) -> tuple[int, list[str]]:
    """Writes the manifest.

    Args:
      files: of conversations.
      media: the folder that paths of videos are relative to.
      output: the manifest.
      max_bad: as of `read_conversations`.

    Returns:
      How many videos it lists, and the paths of those that are not there, which it leaves out.

    Raises:
      FileNotFoundError, ConversationError: as `read_conversations`.
      ValueError: two videos that only their suffix tells apart, or none that is there.
    """
    videos: dict[str, str] = {}
    for file in tqdm(files, "reading conversations", unit="file", delay=5):
        for talk in read_conversations(file, max_bad=max_bad):
            for video in talk.videos:
                other = videos.setdefault(record_id(video), video)
                if other != video:
                    raise ValueError(
                        f"{file}: {other} and {video} have one name without their suffix; rename "
                        "one of them"
                    )
    lines, missing = [], []
    for name, video in tqdm(videos.items(), "looking for videos", unit="video", delay=5):
        path = (media / video).resolve()
        if path.is_file():
            lines.append(json.dumps({"id": name, "path": str(path)}) + "\n")
        else:
            missing.append(video)
    if not lines:
        raise ValueError(f"{media} holds none of {len(videos)} videos; correct --media")
    write_text(output, "".join(lines))
    return len(lines), missing


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = ArgumentParser(prog="python -m trajvit_jax.llm.manifest", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="of conversations, .json or .jsonl")
    parser.add_argument("--media", type=Path, required=True, help="folder of the videos")
    parser.add_argument("--output", type=Path, required=True, help="the manifest, .jsonl")
    parser.add_argument(
        "--max_bad",
        "--max-bad",
        type=float,
        default=0.01,
        help="share of a file's conversations that may be left out as faulty (default: 0.01)",
    )
    options = parser.parse_args(argv)
    try:
        count, missing = write_manifest(
            options.files, options.media, options.output, max_bad=options.max_bad
        )
    except KeyboardInterrupt:
        interrupts.leave("interrupted; nothing is written")
    except (OSError, ValueError) as error:
        return exit_codes.tell(error)
    print(f"{options.output}: {count} videos")
    if missing:
        more = ", .." if len(missing) > _MOST_NAMES else ""
        print(
            f"{len(missing)} videos are not in {options.media}, and their conversations will be "
            f"left out: {', '.join(missing[:_MOST_NAMES])}{more}"
        )
    return 0


if __name__ == "__main__":
    interrupts.install("stopping")
    sys.exit(main())

"""Videos -> embeddings in one file.

  python -m trajvit_jax.embed --model=demo --videos='clips/**/*.mp4' --output=embeddings.npz
  python -m trajvit_jax.embed --model=runs/mine --videos=test.jsonl --output=embeddings.npz
  python -m trajvit_jax.embed --model=demo --videos=clips --output=clips.npz \\
      --search='a small purple triangle spins'

--model is a shipped model's name, the --workdir of a run, or a folder of weights; --videos a
folder, a quoted pattern, a file or a manifest (.jsonl). The file holds `ids`, `paths`,
`embeddings` (float32[n, p], unit vectors, in the same order) and `checkpoint` (of the model);
`trajvit_jax.Index.load` reads it, and so does `numpy.load`. A video that cannot be read stops
nothing: it is named, with the reason, in OUTPUT.quarantine.jsonl.

Exit codes: 0 done; 2 what it was asked for cannot be done: options, files that are not there or
hold something else, no video that can be read; 1 any other failure, or more than --max-bad of the
videos cannot be read; 130 Ctrl-C, after which nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenization import exit_codes, interrupts
from tokenization.arguments import ArgumentParser
from tokenization.files import write_text


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m trajvit_jax.embed",
        description=__doc__,
    )
    parser.add_argument("--model", required=True, help="demo, a workdir, or a folder of weights")
    parser.add_argument("--videos", required=True, help="folder, pattern, file or manifest")
    parser.add_argument("--output", type=Path, required=True, help="file.npz to write")
    parser.add_argument("--search", action="append", default=[], help="text to search for; repeat")
    parser.add_argument("--best", type=int, default=5, help="videos to show of a search (5)")
    parser.add_argument("--batch", type=int, default=8, help="videos the model reads at once (8)")
    parser.add_argument("--tokenization", help="config of the tokenizer; as the model's by default")
    parser.add_argument(
        "--threads", type=int, help="videos read at once; one a processor, at most 4"
    )
    parser.add_argument(
        "--max-bad", type=float, default=0.05, help="share that may not be readable (0.05)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _embed(options)
    except (ValueError, OSError) as error:
        return exit_codes.tell(error)


def _embed(options: argparse.Namespace) -> int:
    output: Path = options.output
    if output.suffix != ".npz":
        raise ValueError(f"--output={output}: embeddings are written as .npz; name it so")
    # Imported late: jax takes seconds, and --help should not.
    from trajvit_jax.api import load

    model = load(options.model, tokenization=options.tokenization, threads=options.threads)
    searched = model.embed_text(options.search)  # what is wrong with it shows before the videos
    index = model.index(options.videos, batch=options.batch)
    index.save(output)
    quarantine = output.with_name(f"{output.name}.quarantine.jsonl")
    lines = [json.dumps(dataclasses.asdict(bad)) + "\n" for bad in index.bad]
    if lines or quarantine.exists():
        write_text(quarantine, "".join(lines))
    print(f"{output}: {len(index)} videos, {index.embeddings.shape[1]} numbers each, by {model!r}")
    for text, embedding in zip(options.search, searched, strict=True):
        print(f"\n{text}")
        for hit in index.nearest(embedding, options.best):
            print(f"  {hit.score:6.3f}  {hit.path}")
    bad = len(index.bad) / (len(index) + len(index.bad))
    if bad:
        print(f"{len(index.bad)} videos could not be read: {quarantine}", file=sys.stderr)
    if bad > options.max_bad:
        print(f"error: that is {bad:.1%}, more than --max-bad={options.max_bad}", file=sys.stderr)
        return exit_codes.FAILED
    return 0


def _run() -> int:
    interrupts.install("stopping; nothing is written")
    logging.basicConfig(format="%(message)s", force=True)
    try:
        return main()
    except KeyboardInterrupt:
        interrupts.leave("interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(_run())

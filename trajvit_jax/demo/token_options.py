"""Options of the page of tokens. No JAX here: they are read before that is imported."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenization.arguments import ArgumentParser
from trajvit_jax.demo.page import TITLES
from trajvit_jax.models.settings import check_choice

# Of videos; a ViT reads images.
MODELS = tuple(name for name in TITLES if name != "vit")
# How a video file is cut for those that differ from TrajViT by their trajectories.
CUT = {
    "segmentation_only": {"tracker": "none", "split": "stride", "clip_limit": 1},
    "tracking_only": {"segmenter": "patches", "tracker": "patches"},
}


def parse(about: str | None, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's options.

    Args:
      about: what `--help` says.
      arguments: None = those of the program.
    """
    parser = ArgumentParser(
        prog="python -m trajvit_jax.demo.tokens",
        description=about,
    )
    parser.add_argument(
        "input", metavar="DIR_OR_VIDEO", type=Path, help="a video file, or a folder of records"
    )
    parser.add_argument("--output", type=Path, default=Path("tokens.html"), help="tokens.html")
    parser.add_argument("--models", help=f"some of {','.join(MODELS)} (all)")
    parser.add_argument("--config", default="configs/comparison.py", help="of the models")
    parser.add_argument("--workdir", type=Path, help="a run, whose model is shown")
    parser.add_argument("--weights", type=Path, help="a folder that trajvit_jax.convert wrote")
    parser.add_argument("--split", default="train", help="of the folder of records (train)")
    parser.add_argument("--video", metavar="ID", help="of the folder; else its first")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    options = parser.parse_args(arguments)
    if options.workdir and options.weights:
        parser.error("--workdir and --weights both say which weights; give one")
    if options.models and (options.workdir or options.weights):
        parser.error("--models are drawn at random; a run or a folder has one model, its own")
    given = options.workdir or options.weights
    if given:
        options.models = [""]
    elif options.models:
        options.models = options.models.split(",")
    else:  # records are cut in one way already
        options.models = [one for one in MODELS if not (options.input.is_dir() and one in CUT)]
    for name in filter(None, options.models):
        try:
            check_choice("--models", name, MODELS)
        except ValueError as error:
            parser.error(str(error))
    return options

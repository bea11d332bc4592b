"""Weights of other programs -> a folder that our models load, and back.

  python -m trajvit_jax.convert --from=trajvit.pt --to=weights/trajvit
  python -m trajvit_jax.convert --from=bert-base-uncased/model.safetensors --to=weights/bert
  python -m trajvit_jax.convert --from=clip.pt --kind=bert --to=weights/text    # one part of it
  python -m trajvit_jax.convert --back --from=weights/trajvit --to=trajvit.safetensors

Known are checkpoints of the released TrajViT and ViT3D (the encoder alone, or with its text side
a whole video-text model) and Hugging Face's ResNet, ViT and BERT, as .safetensors, .npz, .pt,
.pth, .bin or the .index.json of several files. The kind and all sizes are told by the names and
shapes of the arrays. No code in a file is ever run; PyTorch files need PyTorch.

The folder holds model.safetensors (our names), settings.json (the model's settings) and
report.txt (which arrays were used, missing, left over, of the wrong shape). With --back, arrays
that our models never read do not come back, and the CLS of a Hugging Face ViT holds its position
already (that row is zero). Its pixels had mean and deviation 0.5, ours are normalized by
ImageNet's. In Python:

  from flax import nnx
  from trajvit_jax.convert.stored import initialize_from, load_model
  model = load_model("weights/clip")                          # a whole video-text model
  model = load_model("weights/trajvit", rngs=nnx.Rngs(0))     # an encoder; the rest is random
  model = initialize_from(model, "weights/bert")              # with another part in its place
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenization import exit_codes
from tokenization.arguments import ArgumentParser
from trajvit_jax.convert.conversion import convert
from trajvit_jax.convert.files import read_checkpoint
from trajvit_jax.convert.kinds import KINDS, Choices
from trajvit_jax.convert.stored import REPORT, check_new, write_back, write_folder


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m trajvit_jax.convert",
        description=__doc__,
    )
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, help="checkpoint; with --back: folder"
    )
    parser.add_argument(
        "--to", type=Path, required=True, help="new folder; with --back: .safetensors or .npz"
    )
    parser.add_argument("--back", action="store_true", help="write the names they came from again")
    parser.add_argument(
        "--kind", choices=KINDS, help="what to read, where a file holds several or is not told"
    )
    parser.add_argument(
        "--place",
        help="where in a nested checkpoint the arrays are, keys joined by /: model_ema; in a flat "
        "one the beginning of their names",
    )
    parser.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="write what there is, though arrays are missing or of the wrong shape",
    )
    group = parser.add_argument_group("what arrays do not tell")
    group.add_argument(
        "--heads", type=_positive, help="attention heads (widths 384, 768, 1024, 1280: 6, 12, 16)"
    )
    group.add_argument(
        "--text-heads", type=_positive, help="of the text side of a video-text model (768: 12)"
    )
    group.add_argument(
        "--boxes",
        action=argparse.BooleanOptionalAction,
        help="TrajViT: trained with use_bounding_box (assumed: --no-boxes, centres)",
    )
    group.add_argument(
        "--passes",
        type=_positive,
        help="TrajViT: how often it ran its encoder in training (assumed: 2, as its program does)",
    )
    group.add_argument(
        "--image-size",
        type=_positive,
        help="ViT3D: pixels a side, where its file lacks the image ViT (assumed: 224)",
    )
    return parser


def _convert(options: argparse.Namespace) -> None:
    check_new(options.to)  # before minutes of reading
    checkpoint = read_checkpoint(options.source, options.place)
    choices = Choices(
        heads=options.heads,
        text_heads=options.text_heads,
        boxes=options.boxes,
        encoder_passes=options.passes,
        image_size=options.image_size,
    )
    try:
        converted = convert(checkpoint.arrays, options.kind, choices)
    except ValueError as error:
        raise ValueError(f"{options.source}: {error}") from error
    source = "\n".join(checkpoint.lines())
    if not options.allow_incomplete:
        converted.report.raise_if_incomplete(options.source)
    print("\n".join([source, *converted.summary()]))
    if not converted.arrays:
        raise ValueError(f"{options.source} fills no array of the model")
    write_folder(options.to, converted, source=source)
    print(f"wrote {options.to}; {options.to / REPORT} names every array")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.back:
            count = write_back(options.source, options.to)
            print(f"wrote {options.to}: {count} arrays")
        else:
            _convert(options)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        return exit_codes.tell(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Which pixels feed which token, of any model: one page, a colour a token.

Trajectories are what the model is given. The tokens of other models are shown by their own
footprints: tubelets, runs, merged patches; where a token weighs many cells, each cell has the
colour of the token that has most of it. Tokens that have most of no cell are not on the page, and
not counted: of AutoMerge and TokenLearner there may be more. ViViT's are those of its first stage.

  python -m trajvit_jax.demo.tokens clip.mp4 --output=tokens.html
  python -m trajvit_jax.demo.tokens runs/demo/records --split=test --models=trajvit,tome,rlt
  python -m trajvit_jax.demo.tokens clip.mp4 --workdir=runs/mine       # a trained model
  python -m trajvit_jax.demo.tokens clip.mp4 --weights=weights/tiny    # converted weights

Segmentation only and tracking only are TrajViT on other trajectories: a video file is cut as they
ask; of a folder they show what it holds, and are left out unless --models names them. For a trained
or converted model a file is cut as its records were, as far as its folder tells.

Without --workdir and --weights the models of --config are drawn at random: where tokens lie does
not depend on weights, except with ToMe, TokenLearner and AutoMerge.
"""

from __future__ import annotations

from trajvit_jax.demo.token_options import CUT, parse

if __name__ == "__main__":  # --help and what is wrong, before JAX takes its seconds
    parse(__doc__)

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int32
from tqdm import tqdm

from tokenization import exit_codes, interrupts
from tokenization.explore.items import Item, read_records
from tokenization.explore.page import write_page
from tokenization.pipeline import PipelineSettings, build
from tokenization.recorder import ExtractSettings
from tokenization.records import Record
from tokenization.trajectories import Trajectories
from tokenization.video import decode
from trajvit_jax import config as configs
from trajvit_jax.api.loading import tokenization_of
from trajvit_jax.api.reading import Reader
from trajvit_jax.convert.stored import load_model
from trajvit_jax.data.samples import VideoSample, video_sample
from trajvit_jax.demo.page import TITLES
from trajvit_jax.evals.loaded import load
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.footprints import at_pixels, footprint
from trajvit_jax.models.tokens import Tokens
from trajvit_jax.models.video_text import VideoTextModel


def tokens_of(model: VideoTextModel, item: Item) -> Item:
    """The clip at the model's size, its tokens in the place of its trajectories.

    Raises:
      ValueError: a clip of another number of frames than the model reads.
    """
    settings = model.settings
    record = Record.squash(item.trajectories, item.frames, size=settings.image_size)
    sample, made = video_sample(record, settings), item.trajectories
    found = Trajectories.from_labels(
        _labels(model, sample),
        frame_times=made.frame_times,
        key_frames=made.key_frames,
        video=made.video,
        made_by=made.made_by,
    )
    return Item(sample.video, found, item.captions)


def tokens_of_file(model: VideoTextModel, path: Path, cut: ExtractSettings) -> Item:
    """A video or image file as a model reads it, its tokens in the place of its trajectories.

    Args:
      model: that reads it.
      path: of the file.
      cut: how the model's records were made.

    Raises:
      OSError, ValueError: nothing that can be read.
    """
    read = Reader(model.settings, cut).read(path)
    sample, made = read.sample, read.trajectories
    # An image stands still for a model of tubelets.
    times = np.resize(read.frames.times, len(sample.video))
    found = Trajectories.from_labels(
        _labels(model, sample),
        frame_times=times,
        key_frames=np.arange(len(times)) == 0 if made is None else made.key_frames,
        video=read.frames.video,
    )
    return Item(sample.video, found)


def _labels(model: VideoTextModel, sample: VideoSample) -> Int32[np.ndarray, "t y x"]:
    """The token of each pixel that the model reads."""
    labels = jax.numpy.asarray(sample.labels[None])
    if model.settings.name != "trajvit":
        _, _, named = encode_video(model, jax.numpy.asarray(sample.video[None]), labels)
        labels = footprint(named, labels)
    return np.asarray(at_pixels(labels, *sample.video.shape[:3])[0]).astype(np.int32)


@nnx.jit
def encode_video(
    model: VideoTextModel, video: jax.Array, labels: jax.Array
) -> tuple[jax.Array, Tokens, dict[str, jax.Array]]:
    """`VideoTextModel.encode_video`, compiled."""
    return model.encode_video(video, labels)


def titled(item: Item, title: str) -> Item:
    """The same under a name of its own, as what a page tells apart."""
    video = item.trajectories.video
    video = dataclasses.replace(video, id=f"{title}: {video.id}")
    made_by = {"segmenter": title}
    return dataclasses.replace(
        item, trajectories=dataclasses.replace(item.trajectories, video=video, made_by=made_by)
    )


def draw_model(config: str, name: str, seed: int) -> VideoTextModel:
    """A model of a config with random weights.

    Raises:
      ValueError, FileNotFoundError: a config that does not have it.
    """
    name = f"{config}{',' if ':' in config else ':'}model={name}"
    settings = configs.to_settings(ExperimentSettings, configs.load(name)).model
    return VideoTextModel(settings, rngs=nnx.Rngs(seed))


def read_clip(path: Path, name: str, *, frames: int, split: str, video: str | None) -> Item:
    """A clip and its trajectories: of a folder of records, or cut from a file as `name` asks.

    Raises:
      OSError, ValueError: nothing that can be read.
    """
    if path.is_dir():
        return read_records(path, split=split, max_videos=1, video=video)[0]
    settings = configs.to_settings(
        PipelineSettings, {"frames": frames, "max_side": 256, **CUT.get(name, {})}
    )
    found = decode(path, frames=frames, between=settings.between, max_side=settings.max_side)
    return Item(found.rgb, build(settings).tokenize(found))


def items(options: argparse.Namespace) -> list[Item]:
    """What the page shows."""
    found = []
    # `disable=None`: no bar where nobody looks.
    for name in tqdm(options.models, unit="model", leave=False, disable=None):
        if options.workdir:
            model = load(options.workdir).model
        elif options.weights:
            model = load_model(options.weights, rngs=nnx.Rngs(options.seed))
        else:
            model = draw_model(options.config, name, options.seed)
        model, own = model.lossless(), options.workdir or options.weights
        name = name or model.settings.name
        if own and not options.input.is_dir():
            clip = tokens_of_file(model, options.input, tokenization_of(own, name))
        else:
            frames, split = model.settings.frames, options.split
            clip = read_clip(options.input, name, frames=frames, split=split, video=options.video)
            clip = tokens_of(model, clip)
        found.append(titled(clip, TITLES[name]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parse(__doc__, arguments)
    try:
        if not options.input.exists():
            raise FileNotFoundError(f"{options.input} does not exist; give a video file or records")
        if options.output.suffix != ".html":
            raise ValueError(f"--output={options.output} must end in .html")
        shown = items(options)
        write_page(options.output, shown, title="Which pixels feed which token")
    except KeyboardInterrupt:
        interrupts.leave("interrupted; nothing was written")
    except (OSError, ValueError) as error:
        return exit_codes.tell(error)
    for item in shown:
        print(f"{item.trajectories.video.id}: {len(item.trajectories)} tokens on the page")
    print(f"page: {options.output.resolve()}")
    return 0


if __name__ == "__main__":
    interrupts.install("stopping; nothing was written")
    sys.exit(main())

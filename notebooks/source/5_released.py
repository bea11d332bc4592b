# %% [markdown]
# # Load the released PyTorch checkpoint
#
# Checkpoints of the released TrajViT program are converted into this package's names, and give the
# same numbers. Its authors have published no weights yet: a small random checkpoint in the same
# names stands in until you put the path of yours. PyTorch is not needed for `.npz` and
# `.safetensors`; for `.pt` it is.

# %%
import logging
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import trajvit_jax
from trajvit_jax.convert import official
from trajvit_jax.convert.__main__ import main as convert
from trajvit_jax.convert.conversion import convert_back
from trajvit_jax.convert.files import read_state_dict, write_state_dict
from trajvit_jax.convert.kinds import Layout
from trajvit_jax.convert.pieces import paths
from trajvit_jax.demo.clips import real_clips
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResamplerSettings,
    ResNetSettings,
    TrajViTSettings,
)
from trajvit_jax.models.video_text import VideoTextModel

logging.getLogger("trajvit_jax").setLevel(logging.ERROR)
plt.rcParams.update({"figure.dpi": 64})

CHECKPOINT = ""  # put the path of a released one here
CHECKPOINT = CHECKPOINT and Path(CHECKPOINT).expanduser().resolve(strict=True)
os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## A stand-in
#
# Random numbers under the released program's names, small, and with its own choices: centres in
# place of boxes, a learned table of frames, and an encoder that runs twice.


# %%
def random_checkpoint(path):
    """Writes a checkpoint as the released program names its own; returns its path."""
    settings = ModelSettings(
        encoder=EncoderSettings(width=384, depth=2, heads=6, mlp=1536, final_norm=False, passes=2),
        trajvit=TrajViTSettings(
            resnet=ResNetSettings(stem=16, widths=(16, 24, 32, 48)),
            position="centers",
            position_features="released",
            resampler=ResamplerSettings(frame_positions="learned"),
            queries_as="sum",
        ),
    )
    arrays = paths(VideoTextModel(settings, rngs=nnx.Rngs(0)))
    write_state_dict(path, convert_back(arrays, settings, Layout("trajvit")))
    return path


CHECKPOINT = CHECKPOINT or random_checkpoint("stand_in.safetensors")

# %% [markdown]
# ## Convert
#
# The kind of the checkpoint and all sizes are read off its arrays; the report says what was
# assumed, used and left over. From the shell it is `python -m trajvit_jax.convert`, whose `--help`
# has what arrays do not tell.

# %%
failed = convert([f"--from={CHECKPOINT}", "--to=converted"])
assert not failed, "nothing was converted: the line above says why"

# %% [markdown]
# ## On your own videos
#
# A checkpoint of an encoder alone has no text side, so there are no embeddings to compare, but
# tokens and the state of the whole video (CLS), which a probe or a language model reads. How its
# videos were cut no checkpoint tells: for the paper's tokenizer,
# `load(..., tokenization="configs/tokenization/paper.py")`, which needs `make sam2`. By default
# the built-in one cuts them, and a warning says so.

# %%
model = trajvit_jax.load("converted")
made = model.encode(real_clips()[0])
print(model)
print("tokens", made.tokens.shape, "| CLS", made.cls.shape)
try:
    model.embed_video(real_clips()[0])
except ValueError as error:
    print("embed_video:", error)

# %% [markdown]
# ## Into a model of yours, and back
#
# `trajvit_jax.convert.stored.initialize_from(model, folder, parts=[...])` puts a part of a
# checkpoint into another model before training. And the way back, to load in PyTorch, gives the
# arrays that came:

# %%
failed = convert(["--back", "--from=converted", "--to=back.safetensors"])
assert not failed, "nothing was written: the line above says why"
came, back = read_state_dict(CHECKPOINT), read_state_dict("back.safetensors")
same = sum(np.array_equal(array, came.get(name)) for name, array in back.items())
print(f"{same} of {len(back)} arrays are those of the checkpoint, number by number")

# %% [markdown]
# ## The same numbers as the released program
#
# A clone of the repository has a tiny checkpoint which the released program itself was run with:
# its random weights, two clips with its masks of ids and graph of trajectories, and what it printed
# for them. `official.encode_video` reads all of these as they are. Where the package was not
# installed from a clone with `pip install --editable`, set `CLONE`.

# %%
CLONE = Path(trajvit_jax.__file__).parents[1]
printed = CLONE / "tests/goldens/trajvit_tiny.npz"


def compare(file):
    """Our numbers for the clips of the file beside those of the released program."""
    weights = {name.removeprefix("sd/"): file[name] for name in file if name.startswith("sd/")}
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = file["in/video_u8"].transpose(0, 1, 3, 4, 2) / 255
    pixels = ((pixels - mean) / deviation).astype(np.float32).transpose(0, 1, 4, 2, 3)
    mask, graph = file["in/segmask"].astype(np.int32), file["in/graph"].astype(np.int32)

    as_released = {"encoder_passes": 2, "mask_padding": False}
    ours = official.encode_video(weights, pixels, mask, graph, heads=4, **as_released)
    theirs = file["out/rot1_bb0_sdpa_twice"]
    print(f"{ours.shape}: largest difference {np.abs(ours - theirs).max():.1e}", end=" ")
    print(f"of numbers up to {np.abs(theirs).max():.1f}")

    figure, axis = plt.subplots(figsize=(4, 4), layout="constrained")
    axis.plot(theirs.reshape(-1), ours.reshape(-1), ".", markersize=3)
    axis.set(xlabel="released program", ylabel="this package", aspect="equal")
    plt.show()


if printed.is_file():
    compare(np.load(printed, allow_pickle=False))
else:
    print("Left out: no tests/goldens here. Set CLONE to the folder of a clone of the repository.")

# %% [markdown]
# # Load the released PyTorch checkpoint
#
# Checkpoints of the released TrajViT program are converted into this package's names, and give the
# same numbers. Its authors have published no weights yet: a tiny checkpoint of random numbers in
# the same names, which their program was run with, stands in. PyTorch is not needed for `.npz` and
# `.safetensors`; for `.pt` it is.

# %%
import logging
import os
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import trajvit_jax
from trajvit_jax.convert import official
from trajvit_jax.convert.__main__ import main as convert
from trajvit_jax.demo.clips import real_clips

logging.getLogger("trajvit_jax").setLevel(logging.ERROR)
plt.rcParams.update({"figure.dpi": 64})

clone = next(p for p in [Path.cwd(), *Path.cwd().parents] if (p / "tests/goldens").is_dir())
stand_in = clone / "tests/goldens/trajvit_tiny.npz"
os.chdir(tempfile.mkdtemp())
CHECKPOINT = shutil.copy(stand_in, "trajvit_tiny.npz")  # put the path of a released one here

# %% [markdown]
# ## Convert
#
# The kind of the checkpoint and all sizes are read off its arrays; the report says what was
# assumed, used and left over. In this file the arrays are at `sd`, and heads as few as 4 must be
# told; a released checkpoint needs neither `--place` nor `--heads`. From the shell it is
# `python -m trajvit_jax.convert`.

# %%
code = convert([f"--from={CHECKPOINT}", "--to=converted", "--place=sd", "--heads=4"])

# %% [markdown]
# ## The same numbers
#
# The file also holds two clips, with the released program's masks of ids and graph of
# trajectories, and what that program printed for them. `official.encode_video` reads these as they
# are.

# %%
file = np.load(CHECKPOINT, allow_pickle=False)
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
# checkpoint into another model before training. And the way back, to load in PyTorch:

# %%
code = convert(["--back", "--from=converted", "--to=back.safetensors"])

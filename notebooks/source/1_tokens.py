# %% [markdown]
# # One trajectory, one token: cut your own video and look at the tokens
#
# A video is cut into object parts that are followed through time, its *trajectories*. Each
# becomes one token. Here we cut a clip, look at the trajectories, and then at what the small
# shipped model makes of them. Nothing is downloaded.

# %%
import logging

import matplotlib.pyplot as plt
import numpy as np

import trajvit_jax
from tokenization.explore.items import Item
from tokenization.explore.sheet import compose
from tokenization.pipeline import PipelineSettings, build
from tokenization.video import decode
from trajvit_jax.demo.clips import CREDITS, real_clips

logging.getLogger("trajvit_jax").setLevel(logging.ERROR)
plt.rcParams.update({"figure.dpi": 64, "axes.grid": False})

VIDEO = real_clips()[0]  # put the path of your own video (or image) here
print(CREDITS.get(VIDEO.stem, VIDEO.name))

# %% [markdown]
# ## Trajectories
#
# The built-in tokenizer needs no weights: a graph-based segmentation of key frames, carried on by
# optical flow, whose pieces are joined until a shot has at most 50. Below each frame are its
# trajectories. **A colour that stays is one token**; a diamond marks the frames that were segmented
# anew.

# %%
settings = PipelineSettings(frames=8, max_side=320)
frames = decode(VIDEO, frames=8, between=settings.between, max_side=320)
trajectories = build(settings).tokenize(frames)

sheet = compose(Item(frames.rgb, trajectories), columns=4, width=200)
plt.figure(figsize=(11, 11 * sheet.shape[0] / sheet.shape[1]))
plt.imshow(sheet)
plt.axis("off")
plt.show()

# %% [markdown]
# `labels[t, h, w]` is all there is: the number of the trajectory that owns each pixel. How long
# trajectories live, and how large they are:

# %%
presence, areas = trajectories.presence(), trajectories.areas()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3))
left.hist(presence.sum(1), np.arange(1, 10) - 0.5, color="tab:blue", rwidth=0.9)
left.set(xlabel="frames a trajectory is seen in", ylabel="trajectories")
share = areas.sum(1) / areas.sum()
right.plot(np.arange(1, len(share) + 1), 100 * np.cumsum(np.sort(share)[::-1]), "tab:blue")
right.set(xlabel="largest trajectories", ylabel="% of all pixels", ylim=(0, 101))
plt.show()
print(f"{len(trajectories)} trajectories; 2x16x16 patches of 224 pixels would be {4 * 14 * 14}")

# %% [markdown]
# ## Tokens
#
# `trajvit_jax.load` gives a model together with the way its own videos were cut: the demo model
# reads 8 frames of 64x64 pixels, and so few, large trajectories. It has only ever seen a
# procedural world of moving shapes, so expect nothing of what it makes of real clips.

# %%
model = trajvit_jax.load("demo")
made = model.encode(VIDEO, attention=True)
print(model)
print("tokens", made.tokens.shape, "| embedding", made.embedding.shape)

# %% [markdown]
# What the video's CLS looks at in the last layer, painted over the trajectories, and which tokens
# are alike: the cosine of each with the largest one (outlined).

# %%
looked = made.attention[-1].mean(0)[0, 1:]  # of CLS, mean over heads
largest = int(np.argmax(made.trajectories.areas().sum(1)[made.token_ids - 1]))
unit = made.tokens / np.linalg.norm(made.tokens, axis=1, keepdims=True)
alike = unit @ unit[largest]


def painted(values):
    """A map of one number a token, over all pixels."""
    table = np.full(len(made.trajectories) + 1, np.nan)
    table[made.token_ids] = values
    return table[made.trajectories.labels]


shown = [0, 3, 7]
figure, rows = plt.subplots(3, len(shown), figsize=(11, 6.4), layout="constrained")
for column, t in enumerate(shown):
    rows[0, column].imshow(made.frames[t])
    rows[1, column].imshow(painted(looked)[t], cmap="magma", vmin=0, vmax=looked.max())
    rows[2, column].imshow(painted(alike)[t], cmap="viridis", vmin=alike.min(), vmax=1)
    outline = made.trajectories.labels[t] == made.token_ids[largest]
    rows[2, column].contour(outline, [0.5], colors="white", linewidths=1)
for row, title in zip(rows[:, 0], ("frame", "attention of CLS", "alike to the largest")):
    row.set_ylabel(title)
for axis in rows.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Where to go on
#
# * many videos at once: `python -m tokenization.extract --help`; a page to look at them:
#   `python -m tokenization.explore --help`
# * DirectSAM and SAM 2 in place of the built-in tokenizer: `configs/tokenization/paper.py`
# * your own model: `trajvit_jax.load("runs/mine")`

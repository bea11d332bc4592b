# %% [markdown]
# # Search a folder of clips by text, zero-shot
#
# Embed every clip once, then compare a text with all of them: no labels, no training. The folder
# here holds clips of the procedural world that the demo model learned from, with captions that it
# has never seen, and three real clips that it knows nothing of.

# %%
import logging
import shutil
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import interact_manual

import trajvit_jax
from tokenization.manifest import read_manifest
from tokenization.video import decode
from tokenization.world.dataset import write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax.demo.clips import real_clips

logging.getLogger("trajvit_jax").setLevel(logging.ERROR)
plt.rcParams.update({"figure.dpi": 64})

# %% [markdown]
# ## A folder
#
# To search your own, set `FOLDER` to it and go on at the next cell.

# %%
world = Path(tempfile.mkdtemp())
settings = WorldSettings(frames=8, max_objects=2)
manifest = write_split(world, "test", 36, settings, seed=99, progress=False)
captions = {entry.path.name: entry.captions[0] for entry in read_manifest(manifest)}

FOLDER = manifest.parent / "videos"
for clip in real_clips():
    shutil.copy(clip, FOLDER)
print(len(list(FOLDER.iterdir())), "clips")

# %% [markdown]
# ## Embed once
#
# A clip that cannot be read is named in `index.bad` and stops nothing. `index.save("clips.npz")`
# keeps the embeddings; from the shell, `python -m trajvit_jax.embed` does all of this.

# %%
model = trajvit_jax.load("demo")
index = model.index(FOLDER)
print(len(index), "embeddings of", index.embeddings.shape[1], "numbers")

# %% [markdown]
# ## Search
#
# `model.search(text, index)` gives the best clips with their scores.


# %%
def show(text, k=5):
    """The best clips for a text: a frame of each, its score, and its caption if it has one."""
    hits = model.search(text, index, k)
    size = (2.6 * k, 3.8)
    figure, axes = plt.subplots(1, k, figsize=size, layout="constrained", squeeze=False)
    figure.suptitle(text, fontsize=13)
    for axis, hit in zip(axes[0], hits):
        axis.imshow(decode(hit.path, frames=3, max_side=160).rgb[1])
        told = captions.get(Path(hit.path).name, Path(hit.path).name)
        axis.set_title(f"{hit.score:.2f}", fontsize=11)
        axis.set_xlabel(textwrap.fill(told, 27), fontsize=9)
        axis.set(xticks=[], yticks=[])
    plt.show()


first, second = sorted(captions.values(), key=len)[:2]
show(first)
show(second)

# %% [markdown]
# In words of your own. The demo model understands those of its world: sizes (small, medium, large),
# eight colours, six shapes, what they do (moves, enters, leaves, spins), and the backgrounds.

# %%
show("a large red star spins over a brick background")

# %% [markdown]
# The same as a search box, while the notebook runs:

# %%
interact_manual(show, text="a small blue circle enters", k=(1, 8));

# %% [markdown]
# ## How well does it find them?
#
# Every caption against all clips: the rank of its own.

# %% [scores]
names = [Path(path).name for path in index.paths]
ranks = []
for name, caption in captions.items():
    hits = model.search(caption, index, k=len(index))
    ranks.append([Path(hit.path).name for hit in hits].index(name) + 1)
ranks = np.array(ranks)
for k in (1, 5, 10):
    print(f"R@{k}: {100 * (ranks <= k).mean():.0f}%   (chance {100 * k / len(index):.0f}%)")

figure, axis = plt.subplots(figsize=(5.5, 5))
texts = model.embed_text([captions[name] for name in names if name in captions])
videos = index.embeddings[[name in captions for name in names]]
picture = axis.imshow(texts @ videos.T, cmap="viridis")
axis.set(xlabel="clip", ylabel="caption", title="cosine: the diagonal should be bright")
figure.colorbar(picture, shrink=0.8)
plt.show()

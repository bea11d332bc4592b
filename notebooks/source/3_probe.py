# %% [markdown]
# # Probe frozen features on your own labels
#
# How much of what you care about is in a model's features? Freeze it, embed your clips once, and
# fit one linear map on top. Here the label is the kind of background of a clip of the procedural
# world, of six.

# %%
import logging
import tempfile
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import trajvit_jax
from tokenization.manifest import read_manifest
from tokenization.world.dataset import load_truth, write_split
from tokenization.world.scenes import WorldSettings

logging.getLogger("trajvit_jax").setLevel(logging.ERROR)
plt.rcParams.update({"figure.dpi": 64})

# %% [markdown]
# ## Clips and labels
#
# For your own: `videos`, a list of paths, and `labels`, a list of words as long.

# %%
world = Path(tempfile.mkdtemp())
settings = WorldSettings(frames=8, max_objects=2, cut_probability=0.0)
entries = read_manifest(write_split(world, "test", 72, settings, seed=5, progress=False))
videos = [entry.path for entry in entries]
labels = [load_truth(world / "test" / entry.extra["truth"]).background[0] for entry in entries]
print(Counter(labels))

# %% [markdown]
# ## Frozen features
#
# Three of them: the embedding that is compared with texts, the encoder's state of the whole video
# (CLS), and the mean of its tokens. Each clip is cut and read once.

# %%
model = trajvit_jax.load("demo")
made = [model.encode(video) for video in videos]
features = {
    "embedding": np.stack([one.embedding for one in made]),
    "CLS state": np.stack([one.cls for one in made]),
    "mean token": np.stack([one.tokens.mean(0) for one in made]),
}
print({name: x.shape for name, x in features.items()})

# %% [markdown]
# ## One linear map
#
# Ridge regression to the labels, in closed form, with layer-normalized features. Five folds: every
# clip is tested once by a map that has not seen it.

# %%
classes = sorted(set(labels))
wanted = np.array([classes.index(label) for label in labels])
folds = np.random.default_rng(0).permutation(len(videos)) % 5


def probe(x, strength=10.0):
    """The class of each clip, told by a map fitted to the other folds."""
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    x = np.hstack([x, np.ones((len(x), 1))])
    told = np.zeros(len(x), int)
    for fold in range(5):
        known, asked = folds != fold, folds == fold
        gram = x[known].T @ x[known] + strength * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[known].T @ np.eye(len(classes))[wanted[known]])
        told[asked] = (x[asked] @ weights).argmax(1)
    return told


def interval(right, draws=2000):
    """95% of the accuracy over draws of clips (bootstrap)."""
    picks = np.random.default_rng(0).integers(0, len(right), (draws, len(right)))
    return np.percentile(100 * right[picks].mean(1), [2.5, 97.5])


# %% [scores]
told = {name: probe(x) for name, x in features.items()}
usual = Counter(labels).most_common(1)[0][1] / len(labels)
for name, guess in told.items():
    low, high = interval(guess == wanted)
    right = 100 * (guess == wanted).mean()
    print(f"{name:12} {right:5.1f}%  ({low:.0f} to {high:.0f}; most frequent label {100 * usual:.0f})")

# %%
best = max(told, key=lambda name: (told[name] == wanted).mean())
counts = np.zeros((len(classes), len(classes)), int)
np.add.at(counts, (wanted, told[best]), 1)
middle = features[best] - features[best].mean(0)
_, _, axes = np.linalg.svd(middle, full_matrices=False)
flat = middle @ axes[:2].T

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
left.imshow(counts, cmap="Blues")
for (row, column), count in np.ndenumerate(counts):
    left.text(column, row, count or "", ha="center", va="center")
left.set(title=f"probe of the {best}", xlabel="told", ylabel="label")
left.set_xticks(range(len(classes)), classes, rotation=45)
left.set_yticks(range(len(classes)), classes)
for number, name in enumerate(classes):
    right.scatter(*flat[wanted == number].T, label=name, s=30)
right.set(title=f"{best}, two main directions", xticks=[], yticks=[])
right.legend()
plt.show()

# %% [markdown]
# ## Where to go on
#
# The paper's attentive probe (a learned query over frozen tokens, AdamW, 12 epochs) runs on records:
# `python -m trajvit_jax.evals.probing --help`.

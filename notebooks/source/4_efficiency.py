# %% [markdown]
# # What a video costs: tokens and FLOPs by number of frames
#
# Space-time patches cost by frames and pixels; trajectories cost by what is in the video. This is
# the paper's efficiency figure (Figure 6a), by formula for every tokenization in this package, with
# the number of trajectories measured on a real clip.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from tokenization.pipeline import PipelineSettings, build
from tokenization.trackers.tubes import TubeSettings
from tokenization.video import decode
from trajvit_jax.demo.clips import CREDITS, real_clips
from trajvit_jax.models.costs import cost_of, tokens_of
from trajvit_jax.models.settings import SIZES, ModelSettings
from trajvit_jax.models.summary import with_frames

plt.rcParams.update({"figure.dpi": 64})
FRAMES = (16, 32, 64, 128, 256)

# %% [markdown]
# ## Trajectories of a real clip
#
# The more frames are sampled of one clip, the more tubelets there are; the things in it stay the
# same, so their trajectories grow longer, and hardly more. By default pieces are joined until a
# shot has at most 50, which would be 50 each time: here that limit is out of reach.

# %%
clip = real_clips()[1]
counts = {}
for sampled in (8, 16, 32):
    settings = PipelineSettings(frames=sampled, max_side=224, tubes=TubeSettings(most=1000))
    frames = decode(clip, frames=sampled, between=settings.between, max_side=224)
    counts[sampled] = len(build(settings).tokenize(frames))
print(CREDITS[clip.stem])
for sampled, count in counts.items():
    print(f"{sampled:3} frames: {count:4} trajectories, {sampled // 2 * 196:5,} tubelets")

# %% [markdown]
# ## Tokens and FLOPs
#
# All models at ViT-L, 224 pixels. A multiplication and an addition are two FLOPs. TrajViT's tokens
# are the slots it is given, here 150 a video: its cost by frames is its ResNet's, which reads each
# frame once. Of the others, ToMe, ViViT and TokenLearner reduce all patches to fewer tokens on the
# way through the encoder.

# %%
base = ModelSettings(encoder=SIZES["L"])
base = dataclasses.replace(
    base, trajvit=dataclasses.replace(base.trajvit, max_trajectories=150)
)
MODELS = {
    "trajvit": "TrajViT, 150 trajectories",
    "vit3d": "ViT3D",
    "vivit": "ViViT",
    "tome": "ToMe",
    "token_learner": "TokenLearner",
}
costs = {
    name: [(tokens_of(own), cost_of(own)) for own in (with_frames(base, name, f) for f in FRAMES)]
    for name in MODELS
}

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
for name, title in MODELS.items():
    style = {"marker": "o", "linewidth": 3 if name == "trajvit" else 1.5, "label": title}
    left.plot(FRAMES, [tokens.last for tokens, _ in costs[name]], **style)
    right.plot(FRAMES, [cost.total / 1e12 for _, cost in costs[name]], **style)
left.set(ylabel="tokens that leave the encoder")
right.set(ylabel="TFLOPs a video, forward")
for axis in (left, right):
    axis.set(xlabel="frames", xscale="log", yscale="log")
    axis.set_xticks(FRAMES, FRAMES)
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
left.legend()
plt.show()

# %%
print(f"{'frames':>6} {'ViT3D / TrajViT: tokens':>24} {'FLOPs':>7}")
for at, sampled in enumerate(FRAMES):
    (ours, cost), (theirs, other) = costs["trajvit"][at], costs["vit3d"][at]
    print(f"{sampled:6} {theirs.first / ours.first:23.1f}x {other.total / cost.total:6.1f}x")

# %% [markdown]
# ## Where TrajViT's FLOPs are
#
# Pooling, resamplers and the ResNet belong to the tokenizer; the transformer reads 151 slots
# whatever the number of frames.

# %%
parts = np.array([(cost.tokenizer, cost.transformer) for _, cost in costs["trajvit"]]) / 1e12
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
places = np.arange(len(FRAMES))
axis.bar(places, parts[:, 0], label="tokenizer")
axis.bar(places, parts[:, 1], bottom=parts[:, 0], label="transformer")
axis.set_xticks(places, FRAMES)
axis.set(xlabel="frames", ylabel="TFLOPs a video, forward")
axis.legend()
plt.show()

# %% [markdown]
# The same as a table, with all parameters: `python -m trajvit_jax.models.summary
# --config=configs/models.py:trajectories=150 --models=all`. Cutting videos into trajectories is not
# in these numbers: it is done once for a dataset, and `python -m benchmarks.extraction` measures it.

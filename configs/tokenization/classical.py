"""The embedded default: classical segmenter and flow tracker. No weights, no torch, no GPU.

Command:
  python -m tokenization.extract --input='videos/*.mp4' --output=records \\
      --config=configs/tokenization/classical.py

Cost (`python -m benchmarks.tokenization_quality --no_world`, at 730b5f3): 5.5 sampled frames of
512x288 a second of a core's own time, decoding left out.

Expected (`python -m benchmarks.tokenization_quality`): on 40 clips of the procedural world, mean
tube IoU 0.88, 0.44 identity switches an object, 49 trajectories a video, all pixels covered; in
16 frames of each of 12 DAVIS sequences, mean J 0.55 of the first mask followed (0.28 where it is
left where it was), 0.70 of the best union of 8 trajectories, of 50 (0.62 of the 8 sequences that
the weights were fitted on, each judged by weights of the others; 0.71 of the other 4, on which no
weight was fitted, and which were seen while settings were chosen).

Arguments: frames, max_side, split (both, keyframes or stride), limit (frames in a clip, 0 = a
quarter of the video), discover (labels followed from three frames of a shot and merged; False =
once, from the first one on, in half the time), shard_size (videos in a shard):
classical.py:frames=8,split=keyframes
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Settings of `tokenization.extract.ExtractSettings`."""
    chosen = parse_arg(
        arg, frames=16, max_side=512, split="both", limit=0, discover=True, shard_size=64
    )
    return ml_collections.ConfigDict(
        {
            "pipeline": {
                "frames": chosen.frames,
                "max_side": chosen.max_side,
                "segmenter": "classical",
                "tracker": "flow",
                "split": chosen.split,
                "clip_limit": chosen.limit or None,
                "discover": chosen.discover,
            },
            "record_size": 256,
            "shard_size": chosen.shard_size,
        }
    )

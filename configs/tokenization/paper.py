"""The paper's extraction (§3.1, suppl. §8): DirectSAM on key frames, SAM 2.1 between them.

Command:
  make sam2
  python -m tokenization.extract --input='videos/*.mp4' --output=records \\
      --config=configs/tokenization/paper.py

Weights (DirectSAM 338 MB, SAM 2.1 hiera-small 184 MB) are downloaded once; --weights=PATH names a
folder that holds them. On a CUDA device it runs in bfloat16, else in float32 on the CPU. The GPU
waits while a worker makes records of what it tokenized; two workers a GPU, each with its own copy
of the networks, hide that: --workers=2 with one GPU, --gpus_per_worker=0.5 on Ray.

Cost: not measured on a GPU. Expected: the trajectories that the paper's models read; how good they
are is not measured.

The paper's ablations, each a command as above with another --config=configs/tokenization/paper.py:
  trajectory resolution 1024         :resolution=1024
  segments by SAM                    :segmenter=sam2
  key frames by cuts only            :split=keyframes
  key frames at a fixed stride only  :split=stride
  clips of another length            :limit=8
  another IoU for linking            :iou=0.5
  segmentation without tracking      :tracker=none,split=stride,limit=1
  tracking without segmentation      :segmenter=patches,tracker=patches,resolution=224
The last one follows 16x16 patches by a random walk over their likeness, as the model that the paper
cites does. Patches are alike by their colours: its authors' weights have no loader here, and other
features are given in Python (tokenization/trackers/patches.py).
What the released program does instead of all this: configs/tokenization/released.py.

Other arguments: frames; max_side (of decoded frames and label maps, 0 = the resolution);
segmenter (directsam, sam2, classical, patches); tracker (sam2, edgetam, flow, patches, none); sam2
(tiny, small, base_plus, large); directsam (b5; b0 for a distilled one, with --weights); limit
(frames in a clip, 0 = a quarter of the video); threshold (boundary probability); precision
(bfloat16, float32; auto = by the machine that starts the extraction, so name it on a head of Ray
without a GPU); compiled (encoders, by torch.compile); shard_size (videos in a shard).
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Settings of `tokenization.extract.ExtractSettings`."""
    chosen = parse_arg(
        arg,
        frames=16,
        resolution=512,
        max_side=0,
        segmenter="directsam",
        tracker="sam2",
        directsam="b5",
        sam2="small",
        split="both",
        limit=0,
        iou=0.8,
        threshold=0.2,
        precision="auto",
        compiled=False,
        shard_size=64,
    )
    # Of the networks that are used: settings of others would be noted with the records, and not
    # every resolution is one of theirs.
    resolution = {"resolution": chosen.resolution}
    networks = {
        "directsam": {**resolution, "size": chosen.directsam, "threshold": chosen.threshold},
        "sam2": {**resolution, "size": chosen.sam2},
        "edgetam": resolution,
    }
    parts = (chosen.segmenter, chosen.tracker)
    return ml_collections.ConfigDict(
        {
            "pipeline": {
                "frames": chosen.frames,
                "max_side": chosen.max_side or chosen.resolution,
                "segmenter": chosen.segmenter,
                "tracker": chosen.tracker,
                "split": chosen.split,
                "clip_limit": chosen.limit or None,
                "link_iou": chosen.iou,
                "learned": {
                    **{name: networks[name] for name in networks if name in parts},
                    "running": {"precision": chosen.precision, "compiled": chosen.compiled},
                },
            },
            "record_size": 256,
            "shard_size": chosen.shard_size,
        }
    )

"""TrajViT as the eyes of Llama-3-8B: the paper's VideoLLM (§4.3).

Commands, where LLaVA-Video-178K lies as it is published, its videos unpacked:
  python -m trajvit_jax.llm.manifest --output=llava_video.jsonl --media=LLaVA-Video-178K \\
      LLaVA-Video-178K/*/*.json
  python -m tokenization.extract --input=llava_video.jsonl --output=data/llava_video \\
      --config=configs/tokenization/paper.py
  python -m trajvit_jax.llm.teach --workdir=runs/llama3 \\
      --config="configs/videollm/llama3_8b.py:video=runs/panda8m_datacomp50m,\\
llm=Llama-3-8B-Instruct,talks=LLaVA-Video-178K/*/*.json"
To try it first, two steps of a tiny model on the demo's records (a minute on a CPU; talks.json
names their ids as its videos, and a folder with Llama-3's tokenizer.json is needed):
  python -m trajvit_jax.llm.teach --workdir=runs/try --config=configs/videollm/llama3_8b.py:\\
debug,records=runs/demo/records,frames=8,talks=talks.json,tokenizer=Llama-3-8B-Instruct

The recipe: the connector alone is trained, 3 epochs in batches of 32 conversations, as in the
paper. What it leaves open is LLaVA's: AdamW at 1e-3 for a connector alone (2e-5 with the language
model, 2e-4 with adapters), no weight decay, 3% warm-up, cosine.

Cost and memory: docs/VIDEOLLM.md. The paper's result (Table 4) is the average of six benchmarks:
TrajViT 5.2 points above ViT3D, trained 4.2 times faster, 18 times fewer inference FLOPs.

Arguments: model (trajvit, vit3d, ..: the eyes'), video (their run or folder of weights; '' =
random numbers), llm (a folder as Hugging Face keeps a Llama-3), tokenizer (a folder; '' = that of
llm), records (of the videos), talks (files of conversations, or patterns of their names, with ':'
between them), initial (workdir of an earlier run: this one starts from all that it trained, its
connector first of all), held_out (such a file), epochs (over the conversations that are found
there) or steps, batch, frames, tokens (trajectories of a video), group (conversations that share
rows), rows (of a group) and length (of a row), media (videos of a group, where conversations have
several; 0 = one each), lora (rank; 0 = none), unfreeze (the language model), see (the encoder,
too), micro_batches, threads, seed, debug. Records of the videos of held_out are in the
split `test` of records; --config.data.evaluation=FOLDER and --config.data.eval_split=SPLIT name
others.
"""

from __future__ import annotations

import dataclasses

import ml_collections

from trajvit_jax.config import parse_arg
from trajvit_jax.models.settings import SIZES

_TINY = {
    "vocabulary": 128_256,
    "width": 64,
    "depth": 2,
    "heads": 4,
    "key_heads": 2,
    "mlp": 128,
    "dtype": "float32",
}
# Defaults of the arguments of a debug run.
_DEBUG = {"batch": 4, "group": 4}
_TINY_EYES = {
    "image_size": 64,
    "encoder": {"width": 32, "depth": 2, "heads": 2, "mlp": 64},
    "trajvit": {
        "max_trajectories": 31,
        "resnet": {"stem": 8, "widths": (8, 16), "depths": (1, 1)},
    },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for an unknown argument."""
    defaults = {
        "model": "trajvit",
        "video": "",
        "llm": "",
        "tokenizer": "",
        "initial": "",
        "records": "data/llava_video",
        "talks": "LLaVA-Video-178K/*/*.json",
        "held_out": "",
        "epochs": 3.0,
        "steps": 0,
        "batch": 32,
        "frames": 16,
        "tokens": 1023,
        "group": 4,
        "rows": 0,
        "length": 2048,
        "media": 0,
        "lora": 0,
        "unfreeze": False,
        "see": False,
        "micro_batches": 1,
        "threads": 16,
        "seed": 0,
        "debug": False,
    }
    chosen = parse_arg(arg, **defaults)
    if chosen.debug:
        chosen = parse_arg(arg, **defaults | _DEBUG)
    if not chosen.rows:
        # Two conversations share a row; of 1,569 patches and their text a row holds one.
        chosen.rows = max(1, chosen.group // 2) if chosen.model == "trajvit" else chosen.group
    steps = chosen.steps or 2 * chosen.debug
    trained = ("connector",) + ("lora",) * bool(chosen.lora)
    trained += ("llm",) * chosen.unfreeze + ("eyes",) * chosen.see

    config = ml_collections.ConfigDict()
    config.seed = chosen.seed
    # How many steps an epoch has, the files say.
    config.steps, config.epochs = steps or 1, 0.0 if steps else chosen.epochs
    config.log_every = 1 if chosen.debug else 10
    config.checkpoint_every = min(500, steps or 500)
    config.evaluate_every = 0
    config.keep = 2
    config.log_samples = False
    config.wandb = ""
    config.profile = {"start": 0, "steps": 3}
    config.max_skipped = 10
    config.optimize = not chosen.debug
    config.weights = {"video": chosen.video, "llm": chosen.llm, "tokenizer": chosen.tokenizer}
    config.initial = chosen.initial
    config.train = trained
    config.conversations = tuple(chosen.talks.split(":"))
    config.held_out = chosen.held_out
    config.rows = {
        "group": chosen.group,
        "rows": chosen.rows,
        "length": chosen.length,
        "media": chosen.media,
    }
    config.micro_batches = chosen.micro_batches
    config.loss_block = 256
    # A model that has been trained comes with its sizes.
    config.model = {"name": chosen.model, "frames": chosen.frames} | (
        _TINY_EYES
        if chosen.debug
        else {
            "dtype": "bfloat16",
            "encoder": dataclasses.asdict(SIZES["L"]),
            "trajvit": {"max_trajectories": chosen.tokens},
        }
    )
    config.eyes = {"skip": 1, "cls": True}
    config.llm = _llm(chosen)
    config.data = {
        "train": chosen.records,
        "evaluation": "",
        "eval_split": "test",
        "batch": chosen.batch,
        "threads": chosen.threads,
        "max_bad": 0.01,
    }
    rate = 2e-5 if chosen.unfreeze or chosen.see else 2e-4 if chosen.lora else 1e-3
    config.optimizer = {
        "learning_rate": rate,
        "weight_decay": 0.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "clip_norm": 1.0,
        "warmup_fraction": 0.03,
        "final_fraction": 0.0,
    }
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    return config.lock()


def _llm(chosen: ml_collections.ConfigDict) -> dict[str, object]:
    own: dict[str, object] = dict(_TINY) if chosen.debug else {"dtype": "bfloat16"}
    # What is not trained needs no more bits than it was published in.
    own["stored"] = "float32" if chosen.debug or chosen.unfreeze else "bfloat16"
    own["remat"] = "layers"
    if chosen.lora:
        own["lora"] = {"rank": chosen.lora, "alpha": 2.0 * chosen.lora}
    return own

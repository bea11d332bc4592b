"""The numbers of the paper's tables, and the document that says how each is made here.

  python -m trajvit_jax.evals.paper --output=docs/PAPER.md

`paper_numbers.json` holds the numbers, what they need, and where they stand; the document and
`report` are made of it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenization.arguments import ArgumentParser
from tokenization.files import write_text
from trajvit_jax.models.settings import FED_TRAJVIT

_DATA = Path(__file__).with_name("paper_numbers.json")

# Arguments of rows that are not `model=` and the row's name; '' = the config's own.
_ARGUMENTS = {
    "trajvit": "",
    # TrajViT on records that were cut in another way.
    "trajectories_at_1024_px": "",
    "segments_of_sam": "",
    "key_frames_only": "",
    "fixed_stride_only": "",
    # Its encoder.
    "last_stage_only": "ablation=last_stage",
    "no_position_branch": "ablation=no_position",
    "hiera_backbone": "ablation=hiera",
    "mean_over_frames": "ablation=mean",
    "two_queries": "ablation=queries2",
    "four_queries": "ablation=queries4",
    # TokenLearner whose patches leave the encoder, too (supplementary, §9).
    "token_learner_fused": "model=token_learner,fuse",
}
# Lists of the classes, as the datasets publish them.
_CLASSES = {
    "kinetics400": "label_map_k400.txt",
    "ssv2": "something-something-v2-labels.json",
    "ucf101": "classInd.txt",
    "ava": "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
    "imagenet": "LOC_synset_mapping.txt",
}
_ABLATIONS = "ablation880k"
# Where folders of records are not named as their training, and where a model is not of size L.
_RECORDS = {_ABLATIONS: ("panda880k",)}
_SIZES = {_ABLATIONS: "B"}
_VIDEOLLM = "videollm/llama3_8b.py"
# Trainings of more than one run: models of space-time patches read images before videos.
_IN_TURN = {
    ("panda8m_datacomp50m", "vit3d"): ("datacomp50m.py:model=vit", "panda8m_from_images.py"),
}


@dataclasses.dataclass(frozen=True)
class Number:
    """One number of a table.

    Attributes:
      place: of the paper.
      model: by the name of its tokenization here, or of an ablation.
      training: the data it was trained on; '' = none.
      protocol: that measures it.
      dataset: that it is measured on.
      metric: by the name that the protocol gives it.
      value: of the paper; None = the paper has none.
    """

    place: str
    model: str
    training: str
    protocol: str
    dataset: str
    metric: str
    value: float | None

    @property
    def records(self) -> frozenset[str]:
        """Names of the folders that its training reads, as the configs have them."""
        return frozenset(_RECORDS.get(self.training, self.training.split("_")))

    @property
    def run(self) -> tuple[str, str, str] | None:
        """Tokenization, size and ablation of its model, as results have them; None = it is TrajViT
        on records that were cut in another way, which no result tells."""
        size = _SIZES.get(self.training, "L")
        if self.model in FED_TRAJVIT:
            return "trajvit", size, self.model
        if self.model not in _ARGUMENTS:
            return self.model, size, "none"
        if self.model == "token_learner_fused":
            return "token_learner", size, "fuse"
        ablation = _ARGUMENTS[self.model].removeprefix("ablation=")
        if not ablation and self.model != "trajvit":
            return None
        return "trajvit", size, ablation or "none"


@dataclasses.dataclass(frozen=True)
class Block:
    """Part of a table: one protocol, one training.

    Attributes:
      place: of the paper.
      title: what it shows.
      protocol: that measures it.
      training: the data the models were trained on.
      unit: of the numbers.
      columns: dataset and metric of each.
      rows: numbers by model.
      status: 'measured here', 'small-scale' or 'needs data'.
      small: what was measured, and by which command.
      doubt: what is doubtful about the paper's numbers, a sentence.
    """

    place: str
    title: str
    protocol: str
    training: str
    unit: str
    columns: tuple[tuple[str, str], ...]
    rows: Mapping[str, tuple[float | None, ...]]
    status: str
    small: str
    doubt: str = ""

    def numbers(self) -> Iterator[Number]:
        """One by one."""
        for model, values in self.rows.items():
            for (dataset, metric), value in zip(self.columns, values, strict=True):
                protocol = self.protocol
                if protocol == "ablation":  # its columns are of several
                    protocol = "retrieval" if metric == "retrieval" else "probing"
                yield Number(self.place, model, self.training, protocol, dataset, metric, value)


@functools.cache
def _read() -> dict[str, Any]:
    return json.loads(_DATA.read_text("utf-8"))


def blocks() -> tuple[Block, ...]:
    """All tables, in the order of the paper."""
    return tuple(
        Block(
            **one
            | {
                "columns": tuple(map(tuple, one["columns"])),
                "rows": {
                    model: tuple(None if value is None else float(value) for value in values)
                    for model, values in one["rows"].items()
                },
            }
        )
        for one in _read()["blocks"]
    )


def numbers() -> tuple[Number, ...]:
    """All numbers of all tables."""
    return tuple(number for block in blocks() for number in block.numbers())


def settings_of(protocol: str, dataset: str) -> Mapping[str, Any]:
    """How the paper's numbers of a protocol and dataset are measured, as far as it says."""
    return _read()["settings"].get(protocol, {}).get(dataset, {})


def command_of(block: Block, dataset: str) -> str:
    """What evaluates a model as a table does."""
    if block.protocol in ("videoqa", "summary", "ablation"):
        return {
            "videoqa": "`python -m trajvit_jax.llm.evaluate --benchmark=NAME --model=RUN`, "
            "and more options, by benchmark: [VIDEOQA.md](VIDEOQA.md)",
            "summary": "`python -m trajvit_jax.models.summary --config=configs/models.py`",
            "ablation": "those of Table 2 and Table 1 (mean over its data sets)",
        }[block.protocol]
    name, classes = dataset, _CLASSES.get(dataset)
    if name in ("kinetics400", "ssv2", "ucf101") and block.protocol == "classification":
        name += ".py:zero_shot"
    else:
        name += ".py"
    options = f"--config=configs/eval/{name}" + (f" --classes={classes}" if classes else "")
    return f"`python -m trajvit_jax.evals.{block.protocol} {options}`"


def configs_of(training: str, model: str) -> tuple[str, ...]:
    """The configs that train a model of a table, one after the other, below configs/."""
    if not training:
        return ()
    if (training, model) in _IN_TURN:
        return _IN_TURN[training, model]
    argument = _ARGUMENTS.get(model, f"model={model}")
    return (f"{training}.py:{argument}".removesuffix(":"),)


def trained() -> tuple[str, ...]:
    """All configs of all tables."""
    found = [
        config
        for block in blocks()
        for model in block.rows
        for config in configs_of(block.training, model)
    ]
    return tuple(dict.fromkeys(found))


def hours_of(training: str, model: str) -> str:
    """GPU-hours that a training is planned to take, or '-'."""
    planned = _read()["gpu_hours"]
    found = [planned[config] for config in configs_of(training, model)]
    if not found:
        return "-"
    low, high = (sum(ends) for ends in zip(*found, strict=True))
    return f"{low:,.0f} to {high:,.0f}"


def training_of(training: str, model: str) -> str:
    """The configs that train a model of a table."""
    return ", then ".join(f"`configs/{one}`" for one in configs_of(training, model)) or "none"


def document() -> str:
    """The whole document."""
    parts = [_HEAD, _summary(), *map(_section, blocks()), _claims(), _FOOT]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_HEAD = """
# The paper, line by line

Every number in the tables and figures of "One Trajectory, One Token"
([arXiv 2505.23617](https://arxiv.org/abs/2505.23617)), with what makes it here. Made by
`python -m trajvit_jax.evals.paper --output=docs/PAPER.md` from
`trajvit_jax/evals/paper_numbers.json`, which `python -m trajvit_jax.evals.report` reads, too.

No model of the paper's size has been trained with this code yet. *Status* says how far each table
is: **measured here** (the number itself), **small-scale** (the protocol runs end to end on small
models and real clips, by the command named), **needs data** (the protocol is tested on toy records
alone), **needs an accelerator**.

*GPU-hours* are those of training on 32 H100, planned by the formula of [SCALING.md](SCALING.md)
(25% to 45% of 989 TFLOP/s, 400 GB/s between GPUs, assumed), by
`python -m benchmarks.cost_model --paper`. RLT is counted with every slot that it may need: its
tokens depend on the video. A model of two runs has the hours of both; of Table 4 the hours are the
video encoder's alone.
Evaluation costs little beside: in four views, all of Kinetics-400 is under two GPU-hours for
ViT3D-L. Rows of Table 6 that have the config of TrajViT differ in their records, which the config's
first lines tell.

Every command takes `--workdir=RUN --records=FOLDER` besides; each evaluation's config names in its
first lines the split, the captions, the sampling, and the commands that make its records; rows that
train on records cut otherwise are evaluated on records cut alike. Where videos are had, and how
those to train on become records, is in [DATA.md](DATA.md).
"""

_FOOT = """
## Where the paper leaves a choice

- *Top-5 recall.* The tables do not name their metric; the abstract says "top-5 recall", which is
  `txt2vid_r5` and `vid2txt_r5` here.
- *Captions.* Recall from videos is nearly twice that from captions on VATEX and MSR-VTT, and the
  same on ActivityNet and Charades: so all captions of a video seem to be right answers on the first
  two (10 and 20 a video), and one paragraph on the others. The configs do so. The released list of
  MSR-VTT has one caption a video (1k-A); `configs/eval/msrvtt.py:captions=first` reads it.
- *Two versions of a number.* ViT3D's and TrajViT's panda-4m rows differ in the second digit between
  Tables 1 and 10, and its panda-8m rows between Tables 10 and 11. All are here.
- *Probably a slip.* Table 11's panda-8m columns of videos that find captions hold the panda-4m rows
  of Tables 1 and 10: 34.54, 59.11, 12.61 of ViT3D and 38.41, 61.02, 61.00, 14.81 of TrajViT; those
  of panda-8m in Table 10 are 2 to 5 points higher.
- *Text side.* The released program starts its nine layers from bert-base-uncased; the paper does
  not say. The commands start from random numbers; to start as the release does, run
  `python -m trajvit_jax.convert --from=bert-base-uncased/model.safetensors --to=weights/bert` and
  add `initial=weights/bert,vocabulary=bert-base-uncased/vocab.txt` to the config.
- *Templates.* The released program averages the unit vectors of a class's sentences and does not
  normalize the mean, of Kinetics' list for every set of classes; that list is not among its files.
  CLIP's for Kinetics stand in; `prompts=` of a config takes CLIP's for UCF-101 and ImageNet.
- *Probing.* A constant learning rate, an attention-pooling head with an MLP (Zhai et al.), views
  that are consecutive quarters of the video: the paper says none of it.
- *AVA.* The paper puts TokenLearner's tokens back to their places by TokenFuser; whether the model
  was trained with it, it does not say. Here it is (`fuse`), and is a model of its own. RoIAlign
  reads the mean over time of the map, 7x7 cells, as VideoMAE's setup does; the
  paper's own sizes are not given.
"""


def _summary() -> str:
    lines = [
        "| where | what | trained on | numbers | status |",
        "|---|---|---|---:|---|",
    ]
    for block in blocks():
        count = sum(value is not None for values in block.rows.values() for value in values)
        said = block.status + (f": {block.small}" if block.small else "")
        lines.append(
            f"| {block.place} | {block.title} | {block.training or '-'} | {count} | {said} |"
        )
    return "\n".join(lines)


def _section(block: Block) -> str:
    names = [f"{dataset} {metric}" for dataset, metric in block.columns]
    lines = [
        f"## {block.place}: {block.title}",
        "",
        f"{block.unit}. Status: **{block.status}**{'; ' + block.small if block.small else ''}.",
        "",
        f"| model | {' | '.join(names)} | training | GPU-hours |",
        f"|---|{'---:|' * len(names)}---|---:|",
    ]
    for model, values in block.rows.items():
        cells = ["-" if value is None else f"{value:g}" for value in values]
        made = training_of(block.training, model)
        if block.protocol == "videoqa":
            made += (
                f", then `configs/{_VIDEOLLM}:model={model}` by `python -m trajvit_jax.llm.teach`"
            )
        lines.append(
            f"| {model} | {' | '.join(cells)} | {made} | {hours_of(block.training, model)} |"
        )
    if block.doubt:
        lines += ["", block.doubt]
    datasets = list(dict.fromkeys(dataset for dataset, _ in block.columns))
    lines += ["", "| data needed | command |", "|---|---|"]
    if block.protocol in ("videoqa", "summary", "ablation"):
        lines.append(f"| {', '.join(datasets)} | {command_of(block, datasets[0])} |")
    else:
        lines += [f"| {name} | {command_of(block, name)} |" for name in datasets]
    return "\n".join(lines)


def _claims() -> str:
    lines = [
        "## Figures, and numbers in the text",
        "",
        "| where | what | command | status | measured |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(
        lines + [f"| {' | '.join(cell or '-' for cell in row)} |" for row in _read()["claims"]]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the document; returns the exit code."""
    parser = ArgumentParser(
        prog="python -m trajvit_jax.evals.paper",
        description=__doc__,
    )
    parser.add_argument("--output", type=Path, help="file to write; by default it is printed")
    options = parser.parse_args(arguments)
    if options.output is None:
        print(document(), end="")
    else:
        write_text(options.output, document())
        print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""All settings of one experiment: what a config file may change."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from tokenization.files import write_text
from trajvit_jax.config import changed, differences, require_positive, to_settings
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.models.settings import FED_TRAJVIT, ModelSettings, check_choice
from trajvit_jax.models.video_text import TOKENIZERS
from trajvit_jax.optim import OptimizerSettings
from trajvit_jax.run.profiling import ProfileSettings
from trajvit_jax.sharding import MeshSettings
from trajvit_jax.step import StepSettings


@dataclasses.dataclass(frozen=True)
class ExperimentSettings:
    """One training run.

    Attributes:
      initial: folder whose weights a new run starts from: another run's workdir, or one that
        `trajvit_jax.convert` wrote; '' = random numbers.
      steps: updates in all.
      log_every: steps between metric lines.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      evaluate_every: steps between evaluations; 0 = at the end only. A run that is stopped at one
        makes up for it when it goes on.
      protocols: what a run is evaluated by besides retrieval on `data.evaluation`, each a line
        like 'probing --records=data/ucf101 --epochs=5': see `evals.during_training`.
      keep: newest checkpoints that stay.
      keep_best: a result of the evaluation, as 'txt2vid_r1' or 'probing-ucf101/top1', of which the
        best checkpoint stays, too (of ranks, losses and costs the lowest); '' = none. It needs
        evaluations at steps that are saved.
      max_skipped: steps in a row that may be not finite; each changes nothing.
      step: how an update is computed.
      mesh: how the devices share the work.
      profile: steps to profile.
      log_samples: note a hash of each step's record ids in samples.jsonl.
      wandb: project of Weights & Biases to log to, too; '' = none.
      optimize: False = programs are compiled without most optimizations: in half of the time, for
        steps that take longer. For trying things out.

    Raises:
      ValueError: a count under 1, of the model too, an unknown model, or `keep_best` without
        evaluations between steps.
    """

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    seed: int = 0
    initial: str = ""
    steps: int = 1000
    log_every: int = 10
    checkpoint_every: int = 500
    evaluate_every: int = 0
    protocols: tuple[str, ...] = ()
    keep: int = 2
    keep_best: str = ""
    max_skipped: int = 10
    step: StepSettings = StepSettings()
    mesh: MeshSettings = MeshSettings()
    profile: ProfileSettings = ProfileSettings()
    log_samples: bool = False
    wandb: str = ""
    optimize: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "steps", "log_every", "checkpoint_every", "keep", "max_skipped")
        model = self.model
        if model.name in FED_TRAJVIT:
            raise ValueError(
                f"model.name={model.name!r} is trajvit on records of its own: configs/panda4m.py "
                "and ablation880k.py say which, and know it by this name"
            )
        check_choice("model.name", model.name, tuple(TOKENIZERS))
        if self.keep_best and not self.evaluate_every:
            raise ValueError(f"keep_best={self.keep_best!r} needs evaluations: set evaluate_every")


E = TypeVar("E", bound=ExperimentSettings)
_FILE = "settings.json"
MADE_BY = "settings.json"  # beside records: what made them
_SAVED = re.compile(r"\d+(\.broken\d*)?")  # folder of a checkpoint, also of one that was set aside
TOKENIZATION = "tokenization.json"  # how the videos of the first source became records
# What may change between the parts of a run: how it is told of and kept, how it reads, and how
# the same numbers (up to rounding) are computed.
_FREE = (
    *("log_every", "checkpoint_every", "evaluate_every", "protocols"),
    *("keep", "keep_best", "max_skipped"),
    *("mesh", "profile", "log_samples", "wandb", "optimize"),
    *(
        f"data.{name}"
        for name in (
            *("evaluation", "eval_split", "eval_batch"),
            *("threads", "workers", "cache", "max_bad"),
            "vocabulary",  # the workdir keeps its words
        )
    ),
    *("step.micro_batches", "step.loss_block"),
    *(
        "model.impl",
        "model.deterministic",
        "model.encoder.remat",
        "model.encoder.unroll",
        "model.text.unroll",
    ),
    "model.trajvit.resnet.remat",
    # Of a VideoLLM.
    *("held_out", "micro_batches", "loss_block", "llm.remat", "llm.unroll", "llm.attention"),
)


def has_run(workdir: Path) -> bool:
    """Whether a checkpoint was ever saved in the workdir; a save that was cut off is none."""
    names = (path.name for path in (workdir / "checkpoints").glob("[0-9]*"))
    return any(_SAVED.fullmatch(name) for name in names)


def check(workdir: Path, settings: ExperimentSettings, records: str) -> None:
    """Refuses a workdir whose run had other settings; call `note` once the run can start.

    How often a run logs and saves may change between its parts, how it reads data and from which
    folders, as long as the records in them are the same, on which devices it runs, and how it
    trades memory for time.

    Args:
      workdir: of the run.
      settings: of this part of the run.
      records: fingerprint of the records to train on.

    Raises:
      ValueError: the workdir holds checkpoints of other settings; the message names them.
    """
    path = workdir / _FILE
    if not path.exists() or not has_run(workdir):
        return
    old, new = _noted(workdir, type(settings)), _plain(settings, records)
    free = _free_of(old, new)
    old, new = _without(old, free), _without(new, free)
    if old.get("records") == new["records"]:
        old, new = _without_folders(old), _without_folders(new)
    changed = differences(old, new)
    if changed:
        raise ValueError(
            f"{workdir} belongs to a run with other settings ({'; '.join(changed)}); "
            "choose another --workdir, or go on with the old ones"
        )


def check_files(settings: ExperimentSettings) -> None:
    """Refuses files that a new run reads and that are not there: waiting would not bring them.

    Raises:
      ValueError: the setting that names one.
    """
    named = {"initial": settings.initial, "data.vocabulary": settings.data.vocabulary}
    for name, path in named.items():
        if path and not Path(path).exists():
            raise ValueError(f"{name}={path!r} is not there (cwd {Path.cwd()})")


def note(workdir: Path, settings: ExperimentSettings, records: str) -> None:
    """Writes the settings to the workdir, which from the first checkpoint on keeps to them.

    Beside them those that made the records, so that the model can be given new videos that are
    made alike. Only process 0 of a run may call this.
    """
    write_text(workdir / _FILE, json.dumps(_plain(settings, records), indent=2) + "\n")
    made_by = Path(settings.data.train_sources[0].path) / MADE_BY
    if made_by.is_file():
        write_text(workdir / TOKENIZATION, made_by.read_text("utf-8"))


def recipe_of(settings: ExperimentSettings) -> dict[str, Any]:
    """What decides the numbers of a run, as JSON: alike for all seeds of one training.

    Defaults are left out, and what may change between the parts of a run.
    """
    plain = json.loads(json.dumps(changed(settings)))
    return _without_empty(_without(plain, [*_free_of(plain), "seed"]))


def _without_empty(settings: dict[str, Any]) -> dict[str, Any]:
    """A copy without groups of which nothing is left."""
    kept = {
        name: _without_empty(value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }
    return {name: value for name, value in kept.items() if value != {}}


def read_settings(workdir: Path, kind: type[E] = ExperimentSettings) -> E:
    """The settings that `note` wrote.

    Args:
      workdir: of the run.
      kind: of settings.

    Raises:
      FileNotFoundError: none there.
      ValueError: a file that is damaged, or has settings that this version does not know.
    """
    path = workdir / _FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {workdir} is no workdir of a run")
    try:
        values = json.loads(path.read_text("utf-8"))
        for name in ("records", "devices"):
            values.pop(name, None)
        return to_settings(kind, values, "settings")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def read_made_of(workdir: Path) -> str:
    """The fingerprint of records, and of what else it was made of, with which a run is noted."""
    return json.loads((workdir / _FILE).read_text("utf-8"))["records"]


def _noted(workdir: Path, kind: type[ExperimentSettings]) -> dict[str, Any]:
    """What `note` wrote, with the defaults of settings that are newer than the run."""
    values = json.loads((workdir / _FILE).read_text("utf-8"))
    try:
        noted = _plain(read_settings(workdir, kind), values.get("records", ""))
        return noted | ({"devices": values["devices"]} if "devices" in values else {})
    except ValueError:  # of another kind, or with settings that are no more: what differs tells
        return values


def _plain(settings: ExperimentSettings, records: str) -> dict[str, Any]:
    more: dict[str, Any] = {"records": records}
    # A part has some of each device's videos, and statistics of its own.
    if settings.step.norm_scope == "part" and settings.step.micro_batches > 1:
        more["devices"] = jax.device_count() // settings.mesh.tensor
    return json.loads(json.dumps(dataclasses.asdict(settings) | more))


def _free_of(*runs: Mapping[str, Any]) -> list[str]:
    """What may change between them; parts with statistics of their own are another computation."""
    by_part = "part" in (one.get("step", {}).get("norm_scope") for one in runs)
    return [path for path in _FREE if not (by_part and path == "step.micro_batches")]


def _without(settings: dict[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A copy of nested settings, less some of them."""
    kept = copy.deepcopy(settings)
    for path in paths:
        *groups, name = path.split(".")
        group = kept
        for key in groups:
            group = group.get(key) or {}
        group.pop(name, None)
    return kept


def _without_folders(settings: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested settings, less where lies what the fingerprint of records tells of."""
    of_a_videollm = ("conversations", "weights.video", "weights.llm", "weights.tokenizer")
    kept = _without(settings, ["data.train", *of_a_videollm])
    for stream in kept.get("data", {}).get("streams", []):
        stream["sources"] = [_without(source, ["path"]) for source in stream["sources"]]
    return kept

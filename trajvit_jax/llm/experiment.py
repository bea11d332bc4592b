"""All settings of a run that teaches a language model to see."""

from __future__ import annotations

import dataclasses
import math

from trajvit_jax.config import require_positive
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.llm.eyes import EyesSettings, check_skip
from trajvit_jax.llm.model import VideoLLMSettings
from trajvit_jax.llm.packing import RowSettings
from trajvit_jax.llm.settings import LlamaSettings
from trajvit_jax.models.settings import check_choice

PARTS = ("connector", "lora", "llm", "eyes")
"""What can be trained."""


@dataclasses.dataclass(frozen=True)
class WeightSettings:
    """Where what was trained before comes from; '' = random numbers, for trying things out.

    Attributes:
      video: a folder of `trajvit_jax.convert`, or the workdir of a run of `trajvit_jax.main`.
      llm: a folder as Hugging Face keeps a Llama-3: config.json, *.safetensors.
      tokenizer: a folder with its tokenizer.json; '' = that of `llm`.
    """

    video: str = ""
    llm: str = ""
    tokenizer: str = ""


@dataclasses.dataclass(frozen=True)
class VideoLLMExperiment(ExperimentSettings):
    """One run: `ExperimentSettings`, of which `model` is the video encoder's, and more.

    `data.train` is a folder of records, whose ids conversations name as their video (see
    `names.record_id`), and `data.batch` counts conversations; `step` is not used. `initial` is an
    earlier run of a VideoLLM, of which all comes that it trained: see `llm.initial`.

    Attributes:
      eyes: which states of the encoder are read.
      llm: the language model; its sizes come from `weights.llm`, where that is given.
      weights: what was trained before.
      train: which parts are trained: see `PARTS`.
      epochs: over the conversations that there are, from which `steps` follow, which then stay at
        1; 0 = `steps` say.
      conversations: files as LLaVA-Video has them, or patterns of their names.
      held_out: such a file, whose answers' loss is the run's evaluation; '' = there is none.
      max_missing: share of the conversations whose videos may have no record; they are left out.
      rows: into which conversations are packed.
      micro_batches: parts in which a step's groups are run, one after the other; the result is
        that of one part.
      loss_block: places of a row whose logits are made at once.

    Raises:
      ValueError: a part that is none, or nothing to train, or both epochs and steps.
    """

    eyes: EyesSettings = EyesSettings()
    llm: LlamaSettings = LlamaSettings()
    weights: WeightSettings = WeightSettings()
    train: tuple[str, ...] = ("connector",)
    epochs: float = 0.0
    conversations: tuple[str, ...] = ()
    held_out: str = ""
    max_missing: float = 0.1
    rows: RowSettings = RowSettings()
    micro_batches: int = 1
    loss_block: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "micro_batches", "loss_block")
        if not 0 <= self.epochs < math.inf:
            raise ValueError(f"epochs must be at least 0, got {self.epochs}")
        if self.epochs and self.steps != 1:
            raise ValueError(
                f"epochs={self.epochs:g} and steps={self.steps}: set epochs=0, or leave steps at 1"
            )
        if not self.train:
            raise ValueError(f"train names nothing; name some of {', '.join(PARTS)}")
        for part in self.train:
            check_choice("train", part, PARTS)
        if ("lora" in self.train) != (self.llm.lora is not None):
            raise ValueError(
                "train names 'lora' where llm.lora has settings, and only there: set both or none"
            )
        if self.protocols:
            raise ValueError(
                "protocols are of a video-text model: evaluate a VideoLLM with python -m "
                "trajvit_jax.llm.evaluate"
            )
        if not self.conversations:
            raise ValueError("conversations names no file of conversations to train on")
        check_skip(self.model, self.eyes)
        if self.data.batch % self.rows.group:
            raise ValueError(
                f"data.batch={self.data.batch} is not a multiple of rows.group={self.rows.group}"
            )

    @property
    def both(self) -> VideoLLMSettings:
        """Of the VideoLLM."""
        return VideoLLMSettings(self.model, self.eyes, self.llm)

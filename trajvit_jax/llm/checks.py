"""What a run that teaches a language model to see refuses before it starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jax.sharding import Mesh

from trajvit_jax.data.source import open_records
from trajvit_jax.llm.conversation import files_of, read_conversations
from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.llm.hugging_face import read_settings
from trajvit_jax.llm.initial import check_initial
from trajvit_jax.llm.talk_source import Reader, TalkSource
from trajvit_jax.llm.tokenizer import ChatTokenizer
from trajvit_jax.sharding import batch_parts

# What of the language model is no size, and so is the config's to say.
_CHOICES = ("dtype", "stored", "remat", "unroll", "attention", "lora")


def check_groups(settings: VideoLLMExperiment, mesh: Mesh) -> None:
    """Raises ValueError for groups of conversations that the devices cannot share."""
    groups, devices = settings.data.batch // settings.rows.group, batch_parts(mesh)
    if groups % (devices * settings.micro_batches):
        raise ValueError(
            f"{groups} groups ({settings.data.batch} conversations in groups of "
            f"{settings.rows.group}) cannot be shared by {devices} devices in "
            f"{settings.micro_batches} micro-batches: their number must be a multiple of both"
        )


# Not among the settings' own checks, as the next: a run that was trained otherwise may answer in
# bfloat16, and with cuDNN.
def check_numbers(settings: VideoLLMExperiment) -> None:
    """Raises ValueError for a language model that is trained in few bits."""
    if "llm" in settings.train and settings.llm.stored != "float32":
        raise ValueError(
            f"train names 'llm', and llm.stored={settings.llm.stored!r} would round most of its "
            "updates away: set llm.stored='float32'"
        )


def check_length(settings: VideoLLMExperiment) -> None:
    """Raises ValueError for rows that the language model cannot read; it has its sizes by now."""
    if settings.rows.length > settings.llm.context:
        raise ValueError(
            f"rows.length={settings.rows.length} exceeds the language model's context of "
            f"{settings.llm.context}"
        )
    if settings.llm.attention == "cudnn" and settings.rows.length % 2:
        raise ValueError(
            f"rows.length={settings.rows.length}: llm.attention='cudnn' trains on rows of even "
            "length; add one, or set llm.attention='xla'"
        )


def with_sizes(settings: VideoLLMExperiment) -> VideoLLMExperiment:
    """The settings with the sizes of the trained language model.

    Raises:
      FileNotFoundError, ValueError: a folder that holds none.
    """
    if not settings.weights.llm:
        return settings
    kept = {name: getattr(settings.llm, name) for name in _CHOICES}
    return dataclasses.replace(settings, llm=read_settings(settings.weights.llm, **kept))


def tokenizer_of(settings: VideoLLMExperiment) -> ChatTokenizer:
    """The tokenizer that a run reads with.

    Raises:
      FileNotFoundError, ValueError: as `ChatTokenizer.load` does, or none is named.
    """
    weights = settings.weights
    if not (folder := weights.tokenizer or weights.llm):
        raise ValueError(
            "neither weights.llm nor weights.tokenizer is given: name a folder with the "
            "tokenizer.json of a Llama-3"
        )
    return ChatTokenizer.load(folder, settings.llm.vocabulary, model=weights.llm)


def open_talks(
    settings: VideoLLMExperiment,
    files: tuple[str, ...],
    folder: str,
    split: str,
    tokenizer: ChatTokenizer,
) -> TalkSource:
    """Conversations of files, joined with the records of a folder; raises as `TalkSource` does."""
    records = open_records(folder, split)
    packing = settings.data.packing
    reader = Reader(settings.model, settings.eyes, tokenizer, settings.rows, packing)
    max_bad = settings.data.max_bad
    talks = [one for file in files_of(files) for one in read_conversations(file, max_bad=max_bad)]
    return TalkSource(
        talks,
        records,
        reader,
        source=", ".join(files),
        max_bad=max_bad,
        max_missing=settings.max_missing,
    )


def check_here(settings: VideoLLMExperiment) -> list[str]:
    """Checks all of a run that can be known here, without devices and weights.

    Returns:
      What it names that is not on this machine.

    Raises:
      FileNotFoundError, ValueError: what would end the run.
    """
    weights, data = settings.weights, settings.data
    check_numbers(settings)
    if settings.initial and Path(settings.initial).exists():
        check_initial(settings)
    read = [(settings.conversations, data.train, data.train_split)]
    if settings.held_out:
        read.append(((settings.held_out,), data.evaluation_folder, data.eval_split))
    files = {one: _absent_files(one) for one, _, _ in read}
    named = [weights.video, weights.llm, weights.tokenizer, settings.initial]
    named += [folder for _, folder, _ in read]
    absent = [path for path in named if path and not Path(path).exists()]
    elsewhere = absent + [name for own in files.values() for name in own]
    if weights.llm in absent or weights.tokenizer in absent:
        return elsewhere
    settings = with_sizes(settings)
    check_length(settings)
    tokenizer = tokenizer_of(settings)
    for patterns, folder, split in read:
        if folder not in absent and not files[patterns]:
            open_talks(settings, patterns, folder, split, tokenizer)
    return elsewhere


def _absent_files(patterns: tuple[str, ...]) -> list[str]:
    """The patterns of which there is no file."""

    def is_absent(pattern: str) -> bool:
        try:
            return not all(Path(name).exists() for name in files_of([pattern]))
        except FileNotFoundError:
            return True

    return [pattern for pattern in patterns if is_absent(pattern)]

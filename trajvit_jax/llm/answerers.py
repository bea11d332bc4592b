"""The model that a command names: a folder of ours, or a Python function that makes one."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from trajvit_jax.llm.answering import AnswerSettings, CountsDropped, Question, VideoAnswerer
from trajvit_jax.llm.file_samples import samples

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")

# Of a saved model and of a run, whose settings tell the fingerprint of what it was made of.
_FILES = ("settings.json", "tokenization.json", "eyes.safetensors")

DEVICES = "GPUs of this host that share a model of ours (default: 1)"
HELP = (
    "folder of a trained VideoLLM, or package.module:function: a function without arguments that "
    "returns an object with the methods of trajvit_jax.llm.answering.VideoAnswerer"
)


def fingerprint(name: str) -> str:
    """Tells a model's folder from itself at another time, without loading it.

    Of the files that are the model, and nothing else that lies there: their names, sizes and
    content, of large files a part. A copy of the folder has the same. "" for a function, which
    nothing is known of.
    """
    folder, found = Path(name), hashlib.sha256()
    if not folder.is_dir():
        return ""
    for file in sorted(_model_files(folder)):
        found.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        for part in samples(file):
            found.update(part)
    return found.hexdigest()[:16]


def _model_files(folder: Path) -> Iterator[Path]:
    """What `videollm.load` reads: a saved model, or a run's settings and newest checkpoint."""
    yield from (file for name in _FILES if (file := folder / name).is_file())
    steps = [one for one in (folder / "checkpoints").glob("*") if one.name.isdigit()]
    for part in (folder / "llm", *sorted(steps, key=lambda one: int(one.name))[-1:]):
        yield from (file for file in part.rglob("*") if file.is_file())


@dataclasses.dataclass(frozen=True)
class Reply:
    """What became of a question.

    Attributes:
      text: the answer.
      failed: why there is none; "" = there is one.
      error: name of the exception.
      dropped: trajectories of its videos that the model had no place for.
    """

    text: str = ""
    failed: str = ""
    error: str = ""
    dropped: int = 0


def answer_each(
    answerer: VideoAnswerer, questions: Sequence[Question], settings: AnswerSettings
) -> list[Reply]:
    """A reply to each question: one that cannot be answered does not keep the others from it."""
    try:
        texts = answerer.answer_all(questions, settings)
        counts = isinstance(answerer, CountsDropped)
        return [
            Reply(str(text), dropped=answerer.dropped(one, settings) if counts else 0)
            for one, text in zip(questions, texts, strict=True)
        ]
    # XLA tells of a device without memory as a RuntimeError.
    except (ValueError, OSError, RuntimeError) as error:
        if len(questions) == 1:
            name = type(error).__name__
            return [Reply(failed=f"{name}: {error}", error=name)]
    # One of them is at fault: alone the others can be answered.
    return [reply for one in questions for reply in answer_each(answerer, [one], settings)]


def out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory for it, as XLA tells: by a RuntimeError."""
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def load_answerer(name: str, *, batch: int, devices: int = 1) -> VideoAnswerer:
    """Loads the model.

    Args:
      name: as `HELP` says.
      batch: questions that a model of ours computes at once.
      devices: of this host that share one of ours.

    Raises:
      ValueError: it is neither a folder nor such a function, or the host has fewer devices.
      OSError: a file of it cannot be read.
    """
    if Path(name).is_dir():
        from trajvit_jax.llm import videollm  # late: it loads JAX

        return videollm.load(name, batch=batch, devices=devices)
    if devices != 1:
        raise ValueError(f"--devices={devices} is for folders: --model={name} is a function")
    match = _FUNCTION.fullmatch(name)
    if match is None:
        raise ValueError(
            f"--model={name} is neither a folder that exists nor package.module:function"
        )
    try:
        made = getattr(importlib.import_module(match[1]), match[2])()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--model={name} cannot be loaded: {error}") from error
    for method in ("answer", "answer_all"):
        if not callable(getattr(made, method, None)):
            raise ValueError(
                f"--model={name} made a {type(made).__name__}, which has no method {method}(); see "
                "trajvit_jax.llm.answering.VideoAnswerer"
            )
    return made

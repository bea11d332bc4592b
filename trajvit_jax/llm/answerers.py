"""The model that a command names: a folder of ours, or a Python function that makes one."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path

from trajvit_jax.llm.answering import VideoAnswerer

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")

HELP = (
    "folder of a trained VideoLLM, or package.module:function: a function without arguments that "
    "returns an object with the methods of trajvit_jax.llm.answering.VideoAnswerer"
)


def fingerprint(name: str) -> str:
    """Tells a model's folder from itself at another time, without loading it.

    Of the names, sizes and times of its files; "" for a function, which nothing is known of.
    """
    folder, found = Path(name), hashlib.sha256()
    if not folder.is_dir():
        return ""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            stat = file.stat()
            where = file.relative_to(folder).as_posix()
            found.update(f"{where}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return found.hexdigest()[:16]


def load_answerer(name: str) -> VideoAnswerer:
    """Loads the model.

    Raises:
      ValueError: it is neither a folder nor such a function.
      OSError: a file of it cannot be read.
    """
    if Path(name).is_dir():
        from trajvit_jax.llm import videollm  # late: it loads JAX

        return videollm.load(name)
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

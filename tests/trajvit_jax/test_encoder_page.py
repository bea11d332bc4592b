"""docs/ENCODER.md's way from a checkpoint of the encoder to an embedding runs as it is written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np

from trajvit_jax.convert import stored
from trajvit_jax.convert.__main__ import main

ROOT = Path(__file__).parents[2]


def block(language: str, beginning: str) -> str:
    """The block of docs/ENCODER.md that begins so."""
    page = (ROOT / "docs/ENCODER.md").read_text("utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    [text] = [text for text in found if text.startswith(beginning)]
    return text


def test_from_a_checkpoint_to_an_embedding(golden, tiny, tmp_path, monkeypatch, caplog):
    golden("trajvit_tiny")  # or a skip that says where it is looked for
    monkeypatch.chdir(tmp_path)
    Path("tests").mkdir()
    Path("tests/goldens").symlink_to(os.environ.get("TRAJVIT_GOLDENS", ROOT / "tests/goldens"))
    command = shlex.split(block("sh", "python -m trajvit_jax.convert").replace("\\\n", ""))
    assert main(command[3:]) == 0
    # A BERT-base of random numbers takes a while; a small one is as random.
    path = Path("weights/tiny") / stored.SETTINGS
    settings = json.loads(path.read_text())
    settings["model"]["text"] = dataclasses.asdict(tiny().text)
    path.write_text(json.dumps(settings))
    code = block("python", "import jax.numpy")
    for size, smaller in (("16, 224, 224", "2, 64, 64"), ("16, 56, 56", "2, 16, 16")):
        assert size in code
        code = code.replace(size, smaller)
    names: dict = {}
    exec(code, names)
    assert names["embedding"].shape == (1, 64)
    assert np.asarray(names["used"])[0].nonzero()[0].tolist() == [0, 1]
    assert {"stage0", "pooled", "appearance", "position", "states", "attention"} <= set(
        names["named"]
    )
    assert "random is what belongs to project_text, project_video, temperature, text" in caplog.text

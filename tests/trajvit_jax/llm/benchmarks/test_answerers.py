"""The model that a command names: its fingerprint, how it is loaded and asked."""

from __future__ import annotations

import os
import shutil
import sys
import types
from pathlib import Path

import jax
import pytest

import trajvit_jax.llm
from trajvit_jax.llm.answerers import Reply, answer_each, fingerprint, load_answerer
from trajvit_jax.llm.answering import AnswerSettings, Question


@pytest.fixture
def saved(folder) -> Path:
    folder.put("model/settings.json", {"video": {}})
    folder.put("model/eyes.safetensors", "x" * 3_000_000)
    folder.put("model/llm/config.json", {})
    return folder.path / "model"


@pytest.fixture
def run(folder) -> Path:
    folder.put("run/settings.json", {"records": "a"})
    for step in (5, 10):
        folder.put(f"run/checkpoints/{step}/state/data", f"step {step}")
    return folder.path / "run"


def test_what_else_lies_in_the_folder_is_not_the_model(saved, run, folder):
    for model in (saved, run):
        before = fingerprint(str(model))
        for name in ("result.json", "result.answers.jsonl", "log.txt", "llm.log"):
            (model / name).write_text("{}")
        os.utime(model / "settings.json", (1, 1))
        copy = shutil.copytree(model, folder.path / "elsewhere" / model.name)
        assert fingerprint(str(model)) == before == fingerprint(str(copy))
    folder.put("run/checkpoints/15.orbax-checkpoint-tmp/state", "half")
    folder.put("run/checkpoints/5/state/data", "an older one")
    assert fingerprint(str(run)) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model/settings.json", '{"video": []}'),
        ("model/llm/config.json", "[]"),
        ("model/llm/tokenizer.json", "{}"),
        ("model/eyes.safetensors", "y" * 3_000_000),
        ("run/tokenization.json", "{}"),
        ("run/settings.json", '{"records": "b"}'),
        ("run/checkpoints/10/state/data", "step 11"),
        ("run/checkpoints/20/state/data", "step 10"),
    ],
)
def test_another_model_has_another_fingerprint(saved, run, folder, name, content):
    model = folder.path / Path(name).parts[0]
    before = fingerprint(str(model))
    folder.put(name, content)
    assert fingerprint(str(model)) != before


def test_batch_and_devices_reach_the_model(saved, monkeypatch):
    loaded, model = [], Half()
    fake = types.ModuleType("trajvit_jax.llm.videollm")
    fake.load = lambda folder, **options: loaded.append((folder, options)) or model
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(trajvit_jax.llm, "videollm", fake, raising=False)
    assert load_answerer(str(saved), batch=3, devices=2) is model
    assert loaded == [(str(saved), {"batch": 3, "devices": 2})]
    with pytest.raises(ValueError, match="--devices=2 is for folders"):
        load_answerer("package.module:function", batch=3, devices=2)


class Counts:
    """Has places for all but as many trajectories as the question's name is long."""

    def answer(self, video, question, settings):
        raise NotImplementedError

    def answer_all(self, questions, settings):
        return ["!" for _ in questions]

    def dropped(self, question, settings):
        return len(question.text)


def test_replies_count_what_was_not_read():
    questions = [Question("x", ("a",)), Question("yes", ("b",))]
    assert answer_each(Counts(), questions, AnswerSettings()) == [
        Reply("!", dropped=1),
        Reply("!", dropped=3),
    ]


class Half:
    """Answers about a alone."""

    def answer(self, video, question, settings):
        raise NotImplementedError

    def answer_all(self, questions, settings):
        if any(one.videos == ("b",) for one in questions):
            raise OSError("b is broken")
        if any(one.videos == ("c",) for one in questions):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        return [f"{one.text}!" for one in questions]


def test_one_question_that_fails_keeps_no_other_from_its_answer():
    questions = [Question(text, (video,)) for text, video in zip("xyzw", "abac", strict=True)]
    assert answer_each(Half(), questions, AnswerSettings()) == [
        Reply("x!"),
        Reply(failed="OSError: b is broken", error="OSError"),
        Reply("z!"),
        Reply(failed="JaxRuntimeError: RESOURCE_EXHAUSTED", error="JaxRuntimeError"),
    ]

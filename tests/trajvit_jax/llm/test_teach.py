"""A run of `python -m trajvit_jax.llm.teach`: from files to checkpoints, cut and gone on with."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tokenization.shards import write_records
from trajvit_jax import config as configs
from trajvit_jax.experiment import TOKENIZATION, note
from trajvit_jax.llm.conversation import to_llava
from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.llm.train import train
from trajvit_jax.run import interrupts

from .test_talks import talk

CONFIG = "configs/videollm/llama3_8b.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory, toy_record):
    """Records, and conversations about them."""
    folder = tmp_path_factory.mktemp("talks")
    write_records(folder / "records", [toy_record(i) for i in range(12)])
    write_records(folder / "records", [toy_record(i) for i in range(12, 16)], split="test")
    for name, numbers in (("train", range(12)), ("test", range(12, 16))):
        entries = [to_llava(talk(i)) for i in numbers]
        (folder / f"{name}.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def settings(data, cut):
    """The published config in its debug form, smaller still."""
    cut.save(str(data / "tokenizer.json"))
    arguments = (
        f"debug,records={data}/records,frames=4,talks={data}/train.json,steps=6,length=160,"
        f"held_out={data}/test.json,tokenizer={data},threads=2"
    )
    config = configs.load(f"{CONFIG}:{arguments}").copy_and_resolve_references()
    with config.unlocked():
        config.llm.vocabulary = 320
        config.model.image_size = 32
        config.checkpoint_every = 2
    return configs.to_settings(VideoLLMExperiment, config)


def lines(workdir):
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in found if "loss" in line}


@pytest.mark.slow
def test_a_cut_run_equals_an_unbroken_one(settings, tmp_path, monkeypatch):
    whole = train(settings, tmp_path / "whole")
    assert whole["parameters"] == 32 * 64 + 64
    assert 0 <= whole["answer_accuracy"] <= 1 and np.isfinite(whole["answer_loss"])
    losses = lines(tmp_path / "whole")
    assert sorted(losses) == list(range(1, 7))

    asked = iter([False, False, False, True])
    monkeypatch.setattr(
        interrupts.StopRequest, "requested", property(lambda self: next(asked, False))
    )
    with pytest.raises(KeyboardInterrupt, match="stopped after step 4"):
        train(settings, tmp_path / "cut")
    again = train(settings, tmp_path / "cut")
    assert lines(tmp_path / "cut") == losses
    for name in ("answer_loss", "answer_accuracy"):
        assert again[name] == whole[name]
    saved = sum(
        f.stat().st_size for f in (tmp_path / "cut/checkpoints/6").rglob("*") if f.is_file()
    )
    assert saved < 1_000_000  # nothing of the frozen language model


def test_another_run_is_refused(settings, tmp_path):
    short = dataclasses.replace(settings, steps=2, held_out="")
    train(short, tmp_path)
    with pytest.raises(ValueError, match=r"rows\.length: 160, now 200"):
        rows = dataclasses.replace(short.rows, length=200)
        train(dataclasses.replace(short, rows=rows), tmp_path)


def test_a_run_keeps_how_its_videos_were_cut(settings, data, tmp_path):
    (data / "records" / "settings.json").write_text('{"record_size": 256}')
    note(tmp_path, settings, "")
    assert json.loads((tmp_path / TOKENIZATION).read_text()) == {"record_size": 256}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": ()}, "train names nothing"),
        ({"train": ("ears",)}, "train must be one of connector, lora, llm, eyes"),
        ({"train": ("lora",)}, "train names 'lora' where llm.lora"),
        ({"conversations": ()}, "names no file"),
        ({"micro_batches": 0}, "micro_batches"),
    ],
)
def test_settings_that_make_no_run(settings, change, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(settings, **change)


def test_options_of_the_config_are_read(data):
    arguments = f"lora=8,see,talks={data}/train.json:{data}/test.json,tokenizer=x"
    config = configs.load(f"{CONFIG}:{arguments}")
    settings = configs.to_settings(VideoLLMExperiment, config)
    assert settings.train == ("connector", "lora", "eyes")
    assert settings.llm.lora.rank == 8 and settings.llm.stored == "bfloat16"
    assert len(settings.conversations) == 2
    assert settings.steps == round(3 * 1_300_000 / 32)
    assert settings.data.batch == 32


def test_groups_that_devices_cannot_share(settings, tmp_path):
    with pytest.raises(ValueError, match=r"1 groups .* 3 micro-batches"):
        train(dataclasses.replace(settings, micro_batches=3), tmp_path)

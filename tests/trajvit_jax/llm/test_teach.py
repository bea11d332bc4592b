"""A run of `python -m trajvit_jax.llm.teach`: from files to checkpoints, cut and gone on with."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tokenization.shards import write_records
from trajvit_jax import config as configs
from trajvit_jax.convert.pieces import paths
from trajvit_jax.experiment import check, note, read_made_of, read_settings
from trajvit_jax.llm import hugging_face, parts, saved, trained
from trajvit_jax.llm.checks import check_here
from trajvit_jax.llm.conversation import ConversationError, to_llava
from trajvit_jax.llm.costs import eyes_flops, work_of
from trajvit_jax.llm.experiment import VideoLLMExperiment, WeightSettings
from trajvit_jax.llm.eyes import EyesSettings
from trajvit_jax.llm.llama import Llama
from trajvit_jax.llm.lora import LoraSettings
from trajvit_jax.llm.packing import RowSettings
from trajvit_jax.llm.settings import LlamaSettings, to_hugging_face
from trajvit_jax.llm.train import resolve, train, with_steps
from trajvit_jax.models.costs import cost_of
from trajvit_jax.run import interrupts
from trajvit_jax.run.checkpoint_files import load_arrays
from trajvit_jax.sharding import MeshSettings, make_mesh

from .conftest import TOKENIZATION
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


def test_a_run_is_loaded_from_its_workdir(settings, data, tmp_path):
    """With the models that it was trained between, and the note of how videos were cut."""
    own = LlamaSettings(
        vocabulary=320,
        width=32,
        depth=1,
        heads=2,
        key_heads=1,
        mlp=32,
        context=512,
        dtype="float32",
    )
    llm, workdir = tmp_path / "llm", tmp_path / "run"
    hugging_face.save(Llama(own, rngs=nnx.Rngs(0)), llm)
    shutil.copyfile(data / "tokenizer.json", llm / "tokenizer.json")
    weights = dataclasses.replace(settings.weights, llm=str(llm), tokenizer="")
    files = (f"{data}/tr*.json",)
    train(
        dataclasses.replace(
            settings, weights=weights, steps=1, epochs=0.3, held_out="", conversations=files
        ),
        workdir,
    )
    assert read_settings(workdir, VideoLLMExperiment).steps == 1  # 0.3 * 12 / 4
    with pytest.raises(FileNotFoundError, match=r"tokenization\.json is missing"):
        saved.load(workdir)
    (workdir / "tokenization.json").write_text(json.dumps(TOKENIZATION))
    found = saved.load(workdir)
    assert found.tokenization == TOKENIZATION
    expected = hugging_face.load(llm, dtype="float32")
    np.testing.assert_array_equal(
        found.model.llm.table.embedding[...], expected.table.embedding[...]
    )
    hugging_face.save(Llama(own, rngs=nnx.Rngs(1)), llm)
    with pytest.raises(ValueError, match=r"was trained between other models than none and .*llm"):
        saved.load(workdir)


@pytest.mark.parametrize("lora", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_trained_language_model_is_used_as_it_computes(settings, tmp_path, monkeypatch, lora):
    """Its own parameters alone are read, float32 in training, and none of the optimizer's state."""
    llm = dataclasses.replace(
        settings.llm, dtype="bfloat16", lora=LoraSettings(2) if lora else None
    )
    train_parts = ("connector", "llm") + ("lora",) * lora
    changes = {"llm": llm, "train": train_parts, "steps": 2, "held_out": ""}
    train(dataclasses.replace(settings, **changes), tmp_path)
    (tmp_path / "tokenization.json").write_text(json.dumps(TOKENIZATION))
    read, wanted = trained.read_some, []

    def recorded(folder, shapes):
        wanted.extend(jax.tree.leaves(shapes))
        return read(folder, shapes)

    monkeypatch.setattr(trained, "read_some", recorded)
    model = saved.load(tmp_path).model
    assert model.llm.settings.stored == "bfloat16"
    assert model.llm.table.embedding[...].dtype == jnp.bfloat16
    expected = load_arrays(tmp_path)
    own = {name: x for name, x in expected.items() if name.startswith("params.")}
    assert len(wanted) == len(own) < len(expected)
    for name, x in paths(model).items():
        if not name.startswith("eyes."):
            there = own.pop(f"params.{name}")
            np.testing.assert_array_equal(np.asarray(x), there.astype(x.dtype))
    assert not own
    # A newest checkpoint that is damaged gives way to the one before.
    shutil.copytree(tmp_path / "checkpoints/2", tmp_path / "checkpoints/3")
    (tmp_path / "checkpoints/3/files.json").write_text("{")
    again = saved.load(tmp_path).model
    for one, other in zip(*(jax.tree.leaves(nnx.state(m)) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(one, other)
    (tmp_path / "checkpoints/2/files.json").write_text("{")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: files.json is damaged"):
        saved.load(tmp_path)


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


class TestAnEarlierRun:
    @pytest.fixture
    def earlier(self, settings, tmp_path):
        train(dataclasses.replace(settings, steps=2, held_out=""), tmp_path / "first")
        return tmp_path / "first"

    @staticmethod
    def later(settings, earlier, **changes):
        """A run of one step that hardly moves."""
        own = {
            "train": ("connector", "lora"),
            "llm": dataclasses.replace(settings.llm, lora=LoraSettings(2)),
            "optimizer": dataclasses.replace(settings.optimizer, learning_rate=1e-30),
        }
        return dataclasses.replace(
            settings, steps=1, held_out="", initial=str(earlier), **own | changes
        )

    def test_what_it_trained_is_where_another_starts(self, settings, earlier, tmp_path):
        later, workdir = self.later(settings, earlier), tmp_path / "second"
        assert check_here(later) == []
        train(later, workdir)
        there, here = (
            {name: x for name, x in load_arrays(run).items() if name.startswith("params.")}
            for run in (earlier, workdir)
        )
        assert set(there) == {name for name in here if name.startswith("params.connector.")}
        for name, x in there.items():
            np.testing.assert_array_equal(here[name], x)
        # A run that has begun needs it no more.
        shutil.rmtree(earlier)
        assert train(later, workdir)["parameters"] > 0
        # What a run adapted, another must adapt alike.
        third = {"train": ("connector",), "llm": settings.llm}
        with pytest.raises(ValueError, match=r"has trained lora, which the checkpoints .* lack"):
            train(self.later(settings, workdir, **third), tmp_path / "third")
        adapters = dataclasses.replace(settings.llm, lora=LoraSettings(4))
        with pytest.raises(ValueError, match=r"with llm\.lora=.*rank=2.*rank=4"):
            train(self.later(settings, workdir, llm=adapters), tmp_path / "third")
        assert not (tmp_path / "third").exists()

    def test_one_that_was_stopped_is_told(self, settings, earlier, tmp_path, caplog):
        note(earlier, dataclasses.replace(settings, steps=5, held_out=""), read_made_of(earlier))
        train(self.later(settings, earlier), tmp_path / "second")
        assert "first is not finished: 2 steps of 5" in caplog.text

    def test_one_of_other_eyes_or_of_none(self, settings, earlier, tmp_path):
        with pytest.raises(ValueError, match=r"with eyes=.*skip=1.*skip=0"):
            check_here(self.later(settings, earlier, eyes=EyesSettings(skip=0)))
        absent = self.later(settings, tmp_path / "absent")
        assert check_here(absent) == [str(tmp_path / "absent")]
        with pytest.raises(FileNotFoundError, match="absent' holds no checkpoint"):
            train(absent, tmp_path / "run")
        (earlier / "settings.json").write_text('{"model": {"name": "vit3d"}}')
        with pytest.raises(ValueError, match=r"is no run of .* is given as weights\.video"):
            check_here(self.later(settings, earlier))

    def test_one_between_other_models(self, settings, earlier, tmp_path, monkeypatch):
        monkeypatch.setattr(parts, "fingerprint", lambda *_: "of others")
        with pytest.raises(ValueError, match="first was trained between other models"):
            train(self.later(settings, earlier), tmp_path / "second")


def test_another_run_is_refused(settings, tmp_path):
    short = dataclasses.replace(settings, steps=2, held_out="")
    train(short, tmp_path)
    with pytest.raises(ValueError, match=r"rows\.length: 160, now 200"):
        rows = dataclasses.replace(short.rows, length=200)
        train(dataclasses.replace(short, rows=rows), tmp_path)


def test_a_run_keeps_how_its_videos_were_cut(settings, data, tmp_path):
    (data / "records" / "settings.json").write_text('{"record_size": 256}')
    note(tmp_path, settings, "")
    assert json.loads((tmp_path / "tokenization.json").read_text()) == {"record_size": 256}


def test_a_fingerprint_tells_numbers_apart(written, golden_settings):
    """Another model of the same shapes is another model."""
    folder = written("llama")
    (folder / "config.json").write_text(json.dumps(to_hugging_face(golden_settings["llama"])))
    (folder / "tokenizer.json").write_text("{}")
    before = parts.fingerprint(None, str(folder))
    assert parts.fingerprint(None, str(folder)) == before
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert (other := parts.fingerprint(None, str(folder))) != before
    # So is one that reads other words.
    (folder / "tokenizer.json").write_text('{"added_tokens": []}')
    assert parts.fingerprint(None, str(folder)) not in (before, other)


def test_what_a_run_was_made_of_may_be_moved(settings, tmp_path):
    """As long as it is the same: its fingerprint tells."""
    note(tmp_path, settings, "all of it")
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    weights = dataclasses.replace(settings.weights, tokenizer="/elsewhere")
    moved = dataclasses.replace(settings, weights=weights, conversations=("/elsewhere/*.json",))
    check(tmp_path, moved, "all of it")
    with pytest.raises(ValueError, match="records: 'all of it', now 'another'"):
        check(tmp_path, moved, "another")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": ()}, "train names nothing"),
        ({"train": ("ears",)}, "train must be one of connector, lora, llm, eyes"),
        ({"train": ("lora",)}, "train names 'lora' where llm.lora"),
        ({"conversations": ()}, "names no file"),
        ({"micro_batches": 0}, "micro_batches"),
        ({"epochs": 3.0}, "epochs=3 and steps=6: set epochs=0"),
        ({"epochs": -1.0}, "epochs must be at least 0"),
    ],
)
def test_settings_that_make_no_run(settings, change, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(settings, **change)


def test_cudnn_trains_on_rows_of_even_length(settings, tmp_path):
    odd = dataclasses.replace(
        settings, llm=LlamaSettings(attention="cudnn"), rows=RowSettings(group=4, length=161)
    )
    with pytest.raises(ValueError, match=r"rows.length=161: .* even length"):
        train(odd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_are_compared_with_the_context_of_the_trained_model(settings, tmp_path):
    """That of Llama-3 is a default, which says nothing of a 3.1."""
    rows = dataclasses.replace(settings.rows, length=9000)
    long = dataclasses.replace(settings, rows=rows)
    with pytest.raises(ValueError, match=r"rows.length=9000 exceeds .* of 8192"):
        train(long, tmp_path / "run")
    llm = tmp_path / "llm"
    llm.mkdir()
    own = dataclasses.replace(settings.llm, context=131_072)
    (llm / "config.json").write_text(json.dumps(to_hugging_face(own)))
    weights = dataclasses.replace(settings.weights, llm=str(llm))
    long = dataclasses.replace(long, weights=weights)
    resolved, _ = resolve(long, make_mesh(MeshSettings(data=1), jax.devices()[:1]))
    assert resolved.rows.length < resolved.llm.context == 131_072


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"train": ("llm",), "llm": LlamaSettings(stored="bfloat16")},
            "llm.stored='bfloat16' would round most of its updates away",
        ),
        ({"weights": WeightSettings()}, "neither weights.llm nor weights.tokenizer is given"),
    ],
)
def test_what_only_training_refuses(settings, tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        train(dataclasses.replace(settings, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class TestChecksBeforehand:
    def test_what_is_here_is_read(self, settings):
        assert check_here(settings) == []
        with pytest.raises(ValueError, match=r"rows\.length=9000 exceeds"):
            rows = dataclasses.replace(settings.rows, length=9000)
            check_here(dataclasses.replace(settings, rows=rows))

    def test_conversations_that_do_not_fit_their_records(self, settings, data):
        """The held-out ones are of records of another split."""
        files = (f"{data}/test.json",)
        with pytest.raises(ConversationError, match="no conversation's video has a record"):
            check_here(dataclasses.replace(settings, conversations=files))

    def test_what_is_elsewhere_is_named(self, settings):
        weights = dataclasses.replace(settings.weights, llm="/a/llama", video="/a/run")
        there = dataclasses.replace(
            settings, weights=weights, conversations=("/a/*.json",), held_out="/a/test.json"
        )
        found = check_here(there)
        assert found == ["/a/run", "/a/llama", "/a/*.json", "/a/test.json"]


def test_options_of_the_config_are_read(data):
    arguments = f"lora=8,see,talks={data}/train.json:{data}/test.json,tokenizer=x"
    config = configs.load(f"{CONFIG}:{arguments}")
    settings = configs.to_settings(VideoLLMExperiment, config)
    assert settings.train == ("connector", "lora", "eyes")
    assert settings.llm.lora.rank == 8 and settings.llm.stored == "bfloat16"
    assert len(settings.conversations) == 2
    assert settings.data.batch == 32
    # An epoch is of the conversations that there are.
    assert (settings.epochs, settings.steps) == (3.0, 1)
    found = with_steps(settings, 1000)
    assert (found.epochs, found.steps) == (0.0, round(3 * 1000 / 32))
    assert with_steps(found, 1) == found
    given = configs.to_settings(VideoLLMExperiment, configs.load(f"{CONFIG}:steps=70"))
    assert (given.epochs, given.steps) == (0.0, 70)
    # Where the videos of held-out conversations are is no argument: --config.data.* says it.
    assert config.data.evaluation == "" and config.data.eval_split == "test"


def test_work_of_a_step_has_the_head(settings):
    """Forwards, and backwards to what is trained before it."""
    large = dataclasses.replace(settings, llm=dataclasses.replace(settings.llm, vocabulary=640))
    tokens = 2 * 160
    assert work_of(large).flops - work_of(settings).flops == 2 * 2 * 64 * 320 * tokens


def test_eyes_cost_no_layer_that_they_leave_out(settings):
    """By how much: a layer of the encoder, which costs the same wherever it is."""
    video, depth = settings.model, settings.model.encoder.depth
    shallow = dataclasses.replace(video.encoder, depth=depth - 1)
    layer = cost_of(video).total - cost_of(dataclasses.replace(video, encoder=shallow)).total
    whole, less = (eyes_flops(video, EyesSettings(skip)) for skip in (0, 1))
    assert whole == cost_of(video).total and whole - less == layer > 0
    all_of_it = dataclasses.replace(settings, eyes=EyesSettings(0))
    assert work_of(all_of_it).flops - work_of(settings).flops == settings.data.batch * layer


def test_groups_that_devices_cannot_share(settings, tmp_path):
    with pytest.raises(ValueError, match=r"1 groups .* 3 micro-batches"):
        train(dataclasses.replace(settings, micro_batches=3), tmp_path)

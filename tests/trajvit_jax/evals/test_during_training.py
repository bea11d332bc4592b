"""Protocols that a run is evaluated by: they find what their commands find, and fail before it."""

from __future__ import annotations

import importlib

import jax
import pytest

from trajvit_jax.data.source import RecordsError
from trajvit_jax.evals import command, during_training
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.results import read_result
from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.sharding import MeshSettings, make_mesh

HEAD = "--epochs=3 --learning-rate=0.01 --weight-decay=0"
LINES = {
    "retrieval": "--captions=first",
    "classification": "--views=2 --prompts=none",
    "probing": f"--views=2 --size=8 {HEAD}",
    "scaling": "--at=2,8",
    "detection": f"--boxes-a-step=8 {HEAD}",
    "temporal_clips": "",
}
_MEASURED = ("memory_mib", "seconds")  # of the machine


@pytest.fixture
def one_device():
    return make_mesh(MeshSettings(data=1), jax.devices()[:1])


@pytest.mark.parametrize("model", ["trajvit", "vit3d"])
def test_they_find_what_their_commands_find(
    runs, long_records, boxed_records, tmp_path, one_device, model
):
    workdir, folders = runs(model), dict.fromkeys(LINES, long_records)
    folders |= dict.fromkeys(("detection", "temporal_clips"), boxed_records)
    lines = [f"{name} --records={folders[name]} {rest}" for name, rest in LINES.items()]
    planned, loaded = during_training.plan(lines), load(workdir)
    told = []
    with jax.set_mesh(one_device):
        found = during_training.evaluate(
            planned,
            loaded.model,
            loaded.words(),
            tmp_path,
            mesh=one_device,
            between=lambda: told.append(None),
        )
    expected = {}
    for name, rest in LINES.items():
        protocol = importlib.import_module(f"trajvit_jax.evals.{name}").PROTOCOL
        path = tmp_path / f"{name}.json"
        given = [f"--workdir={workdir}", f"--records={folders[name]}", f"--json={path}"]
        assert command.main(protocol, [*given, "--draws=0", *rest.split()]) == 0
        called = f"{name}-{folders[name].name}"
        metrics = read_result(path).metrics
        expected |= {f"{called}/{key}": one.value for key, one in metrics.items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.endswith(_MEASURED):
            assert found[name] == pytest.approx(value, abs=1e-6), name
    # Every batch of videos and captions, and every step of the heads, can be left.
    assert len(told) > len(LINES)
    assert not list(tmp_path.glob("evals*")), "nothing but numbers is kept"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "'' is no protocol: known: classification, "),
        ("retreival --records=x", "'retreival' is no protocol: did you mean 'retrieval'?"),
        ("retrieval", "the following arguments are required: --records"),
        ("retrieval --records=x --workdir=y", "unrecognized arguments: --workdir=y"),
        ("retrieval --records=x --captions=last", "captions"),
        ("retrieval --records=x --batch=many", "invalid int value: 'many'"),
        ("retrieval --records='x", "No closing quotation"),
        ("probing --records=x --features=kept", "--features keeps tokens of one state"),
        ("probing --records=x --classes=no.txt", "no.txt"),
        ("detection --records=x --boxes=no.csv", "no.csv"),
        ("classification --records=x --prompts=no.txt", "no.txt"),
        (
            "probing --records=x --config=configs/eval/kinetics400.py:zero_shot",
            "is for python -m trajvit_jax.evals.classification, not for probing",
        ),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_it(line, reason):
    with pytest.raises(ValueError, match=r"config\.protocols: ") as told:
        during_training.plan(["temporal_clips --records=fine", line])
    assert repr(line) in str(told.value) and reason in str(told.value)


def test_results_have_names_of_their_own():
    lines = ["probing --records=a/k400", "probing --records=b/k400 --views=1"]
    with pytest.raises(ValueError, match=r"called 'probing-k400'.*--dataset=NAME"):
        during_training.plan(lines)
    planned = during_training.plan([lines[0], f"{lines[1]} --dataset=small"])
    assert [one.name for one in planned] == ["probing-k400", "probing-small"]
    assert planned[1].settings.views == 1


def test_a_line_may_name_a_config_of_the_paper_and_change_it():
    config = "configs/eval/kinetics400.py"
    [planned] = during_training.plan([f"probing --records=x --config={config} --epochs=2"])
    assert planned.name == "probing-kinetics400"
    assert (planned.settings.views, planned.settings.epochs) == (4, 2)


def test_records_that_cannot_be_read_are_told_before_a_run_begins(tiny, toy_records, long_records):
    model = tiny("vit3d")  # of four frames

    def check(line):
        return during_training.fingerprints(during_training.plan([line]), model)

    [of_both] = check(f"probing --records={long_records} --views=2").values()
    assert len(of_both) == 2 and all(len(one) == 16 for one in of_both)
    for line, reason in (
        (f"retrieval --records={toy_records} --frames=8", "has 4 frames, 8 frames are to be read"),
        (f"retrieval --records={toy_records} --frames=3", "multiples of 2 frames, not 3"),
        (f"scaling --records={toy_records} --at=4,16", "has 4 frames, 16 frames are to be read"),
        (f"classification --records={toy_records} --views=2", "2 views of 4 frames"),
    ):
        with pytest.raises(ValueError, match=reason):
            check(line)
    with pytest.raises(RecordsError, match="has no split 'train'"):
        check(f"probing --records={toy_records} --views=1")


def test_a_videollm_takes_none():
    with pytest.raises(ValueError, match=r"protocols are of a video-text model.*llm\.evaluate"):
        VideoLLMExperiment(protocols=("retrieval --records=x",), conversations=("talks.json",))

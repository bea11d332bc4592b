"""Protocols that a run is evaluated by: they find what their commands find, and fail before it."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json

import jax
import pytest

from tokenization.shards import write_records
from trajvit_jax.evals import command, during_training
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.results import read_result
from trajvit_jax.failures import ComesAgain
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


@pytest.mark.parametrize("model", [pytest.param("trajvit", marks=pytest.mark.slow), "vit3d"])
def test_they_find_what_their_commands_find(
    runs, long_records, boxed_records, tmp_path, one_device, model
):
    workdir, folders = runs(model), dict.fromkeys(LINES, long_records)
    folders |= dict.fromkeys(("detection", "temporal_clips"), boxed_records)
    lines = [f"{name} --records={folders[name]} {rest}" for name, rest in LINES.items()]
    planned, loaded = during_training.plan(lines), load(workdir)
    found, told = {}, {}
    for one in planned:
        own = told[one.protocol.name] = []
        with jax.set_mesh(one_device):
            found |= during_training.evaluate(
                [one],
                loaded.model,
                loaded.words(),
                tmp_path,
                mesh=one_device,
                between=functools.partial(own.append, None),
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
    # Each batch of videos and captions can be left, and each of three epochs of a head: probing has
    # eight clips a step, detection as many boxes, of which TrajViT finds half in trajectories. What
    # ViT3D costs shows a first batch, which is left no more.
    steps, costs = {"trajvit": (1, 1), "vit3d": (2, 0)}[model]
    assert {name: len(own) for name, own in told.items()} == {
        "retrieval": 2,
        "classification": 2,
        "probing": 2 + 3,
        "scaling": 2 * (2 + costs),
        "detection": 2 + 3 * steps,
        "temporal_clips": 2,
    }
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


def test_what_will_fail_is_told_before_a_run_begins(
    tiny, toy_records, long_records, boxed_records, tmp_path
):
    model = tiny("vit3d")  # of four frames and width 32

    def check(line):
        during_training.check(during_training.plan([line]), model)

    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\ngray\n")
    check(f"probing --records={long_records} --views=2")
    check(f"detection --records={boxed_records}")
    of_toys, of_long = f"--records={toy_records}", f"--records={long_records}"
    for line, reason in (
        (f"retrieval {of_toys} --frames=8", "has 4 frames, 8 frames are to be read"),
        (f"retrieval {of_toys} --frames=3", "multiples of 2 frames, not 3"),
        (f"scaling {of_toys} --at=4,16", "has 4 frames, 16 frames are to be read"),
        ("scaling --records=no_{frames} --at=4,16", "no_4"),
        (f"classification {of_toys} --views=2", "2 views of 4 frames"),
        (f"probing {of_toys} --views=1", "has no split 'train'"),
        (f"probing {of_long} --views=1 --heads=5", "--heads=5 cannot share tokens of width 32"),
        (f"probing {of_long} --views=1 --classes=no.txt", "no.txt"),
        (f"classification {of_toys} --prompts=no.txt", "no.txt"),
        (f"detection --records={boxed_records} --boxes=no.csv", "no.csv"),
        (f"detection --records={boxed_records} --boxes={tmp_path}", str(tmp_path)),
        (f"detection {of_long}", "can be used: record 'clip00' has no boxes"),
        (f"temporal_clips {of_toys}", "does not say which video"),
        (f"classification --records={boxed_records}", "can be used: record 'clip00' has no label"),
    ):
        with pytest.raises(ValueError, match=r"config\.protocols: ") as told:
            check(line)
        assert repr(line) in str(told.value) and reason in str(told.value)
    with pytest.raises(ValueError, match="'grey', which is none of the 4 classes"):
        check(f"classification {of_toys} --classes={tmp_path / 'classes.txt'}")


def test_what_no_restart_mends_is_told_as_such(runs, toy_record, tmp_path, one_device):
    """A label that is in no record that was tried, in the middle of a run."""
    labels = ["red"] * 12
    labels[5] = "grey"
    made = [dataclasses.replace(toy_record(i), label=label) for i, label in enumerate(labels)]
    write_records(tmp_path / "records", made, split="test")
    (tmp_path / "classes.txt").write_text("red\n")
    line = f"classification --records={tmp_path}/records --classes={tmp_path}/classes.txt"
    planned, loaded = during_training.plan([line]), load(runs("vit3d"))
    how = {"mesh": one_device, "between": lambda: None}
    with jax.set_mesh(one_device), pytest.raises(ComesAgain, match=r"config\.protocols: .*'grey'"):
        during_training.evaluate(planned, loaded.model, loaded.words(), tmp_path, **how)


def test_one_bad_record_is_no_reason_to_refuse_all(tiny, toy_record, tmp_path):
    made = [dataclasses.replace(toy_record(i), label="red" if i else None) for i in range(3)]
    write_records(tmp_path, made, split="test")
    planned = during_training.plan([f"classification --records={tmp_path}"])
    during_training.check(planned, tiny("vit3d"))


def test_results_are_known_by_what_files_hold(long_records, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("red\ngreen\n")
    line = f"probing --records={long_records} --views=2 --classes={classes}"

    def facts(line):
        [(name, own)] = during_training.facts(during_training.plan([line])).items()
        assert name == f"probing-{long_records.name}"
        return own

    first = facts(line)
    assert len(first["records"]) == 2 and first == facts(line)
    assert json.loads(json.dumps(first)) == first
    classes.write_text("green\nred\n")
    assert facts(line) != first
    assert facts(f"{line} --epochs=2")["epochs"] == 2


def test_what_is_not_on_this_machine_is_named(long_records):
    lines = [
        f"scaling --records={long_records}/{{frames}} --at=4,16",
        f"probing --records={long_records} --classes=no.txt",
        f"classification --records={long_records} --prompts=kinetics",
    ]
    found = [during_training.missing(one) for one in during_training.plan(lines)]
    assert found == [[f"{long_records}/4", f"{long_records}/16"], ["no.txt"], []]


def test_a_videollm_takes_none():
    with pytest.raises(ValueError, match=r"protocols are of a video-text model.*llm\.evaluate"):
        VideoLLMExperiment(protocols=("retrieval --records=x",), conversations=("talks.json",))

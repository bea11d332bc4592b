"""Every protocol as a command, on tiny models: what it writes, and what it says of bad input."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tokenization.missing import keep, read_beside
from tokenization.records import Boxes
from tokenization.shards import write_records
from trajvit_jax.data.source import open_records
from trajvit_jax.evals import classification, command, detection, scaling
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.results import read_result

PROTOCOLS = ("retrieval", "classification", "probing", "detection", "temporal_clips", "scaling")
LEFT = (0.0, 0.0, 0.5, 1.0)


def protocol(name):
    return importlib.import_module(f"trajvit_jax.evals.{name}").PROTOCOL


@pytest.fixture(scope="module")
def evaluated(runs, tmp_path_factory):
    """The result of a protocol on a run; `options` as on the command line."""

    def run(name, model, records, *options):
        path = tmp_path_factory.mktemp("results") / "result.json"
        given = [f"--workdir={runs(model)}", f"--records={records}", f"--json={path}"]
        code = command.main(protocol(name), [*given, "--draws=20", "--batch=8", *options])
        assert code == 0
        return read_result(path)

    return run


@pytest.mark.parametrize("name", PROTOCOLS)
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit) as left:
        command.main(protocol(name), ["--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert f"python -m trajvit_jax.evals.{name} --workdir=" in said
    for field in dataclasses.fields(protocol(name).settings):
        assert f"--{field.name.replace('_', '-')} " in said.replace(",", " ")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_help_and_what_is_wrong_do_not_wait_for_jax(name):
    """Imports are listed by Python itself; nothing is timed, for machines differ."""
    for arguments, code in (["--help"], 0), (["--workdir=a"], 2), (["--workdirs=a"], 2):
        line = [sys.executable, "-X", "importtime", "-m", f"trajvit_jax.evals.{name}", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
        assert done.returncode == code and "trajvit_jax.evals.options" in imported
        assert imported.isdisjoint({"jax", "flax", "tensorflow", "torch"})


def test_a_result_says_what_is_needed_to_repeat_it(evaluated, runs, toy_records, capsys):
    result = evaluated("retrieval", "vit3d", toy_records, "--dataset=toys")
    said = capsys.readouterr().out
    assert (result.protocol, result.dataset, result.split) == ("retrieval", "toys", "test")
    assert (result.count, result.of, result.missing) == (12, 12, [])
    assert (result.frames, result.stored, result.views, result.seed) == (4, 4, 1, 0)
    assert (result.model, result.step, result.train_seed) == ("vit3d", 6, 3)
    assert result.train_records == ["records"] and result.source == str(runs("vit3d"))
    assert len(result.checkpoint) == 16 and len(result.fingerprint) == 16
    assert "--dataset=toys" in result.command and "jax" in result.versions
    recall = result.metrics["txt2vid_r5"]
    assert recall.low <= recall.value <= recall.high
    assert result.metrics["vid2txt_r10"].value is not None
    assert "12 of 12" in said and result.checkpoint in said and "| vid2txt_r1 |" in said


def test_the_same_command_gives_the_same_numbers(evaluated, toy_records):
    one, two = (evaluated("retrieval", "vit3d", toy_records) for _ in range(2))
    assert (one.metrics, one.checkpoint) == (two.metrics, two.checkpoint)


@pytest.mark.parametrize("model", ["vit3d", "trajvit"])
def test_classes_are_found_by_sentences(evaluated, toy_records, tmp_path, model):
    result = evaluated("classification", model, toy_records, "--prompts=actionclip")
    assert result.notes["classes"] == 4 and result.metrics["chance_top1"].value == 25
    assert 0 <= result.metrics["top1"].value <= 100 and "top5" not in result.metrics
    classes = tmp_path / "classes.txt"
    classes.write_text("grey\nred\tscarlet\nblue\ngreen\nyellow\npink\n")
    more = evaluated("classification", model, toy_records, f"--classes={classes}", "--prompts=none")
    assert more.notes["classes"] == 6 and "top5" in more.metrics


def test_synsets_are_called_by_their_names(
    runs, toy_record, tmp_path, evaluated, monkeypatch, capsys
):
    """ImageNet's reader keeps both; what captions are compared with is no number."""
    sentences = []
    texts = Embedder.texts
    monkeypatch.setattr(
        Embedder, "texts", lambda self, own, text: sentences.append(own) or texts(self, own, text)
    )
    names = {"n01440764": "tench, Tinca tinca", "n02012849": "crane", "n03126707": "crane, hoist"}
    synsets = list(names)
    made = [
        dataclasses.replace(
            toy_record(i), label=names[synsets[i % 3]], extra={"synset": synsets[i % 3]}
        )
        for i in range(6)
    ]
    write_records(tmp_path / "named", made, split="test")
    mapping = tmp_path / "LOC_synset_mapping.txt"
    mapping.write_text("".join(f"{synset} {name}\n" for synset, name in names.items()))
    options = ("--prompts=imagenet",)
    plain = evaluated("classification", "vit3d", tmp_path / "named", *options)
    listed = evaluated(
        "classification", "vit3d", tmp_path / "named", *options, f"--classes={mapping}"
    )
    assert sentences[0] == sentences[1] and "itap of a tench." in sentences[0]
    assert plain.notes["classes"] == 3 and plain.metrics == listed.metrics
    bare = [
        dataclasses.replace(one, label=synset, extra={"synset": synset})
        for one, synset in zip(made, synsets, strict=False)
    ]
    write_records(tmp_path / "bare", bare, split="test")
    where = (f"--workdir={runs('vit3d')}", f"--records={tmp_path / 'bare'}")
    said = fails("classification", capsys, *where)
    assert "is of class 'n01440764'" in said and "--classes=LOC_synset_mapping.txt" in said


def test_views_are_averaged(evaluated, runs, long_records, monkeypatch):
    """Scores are products of a class's sentence and the mean of both halves' embeddings."""
    found = []
    measure = classification.measure
    monkeypatch.setattr(classification, "measure", lambda one: found.append(one) or measure(one))
    result = evaluated("classification", "vit3d", long_records, "--views=2", "--prompts=none")
    assert (result.count, result.views, result.stored, result.frames) == (8, 2, 8, 4)
    loaded, records = load(runs("vit3d")), open_records(long_records, "test")
    embedder = Embedder(loaded.model, batch=8)
    halves = [
        embedder.videos(
            [
                dataclasses.replace(
                    record,
                    frames=record.frames[half],
                    trajectories=record.trajectories.take_frames(np.arange(8)[half]),
                )
                for record in records
            ]
        ).vectors
        for half in (slice(0, 4), slice(4, 8))
    ]
    sentences = embedder.texts(["green", "red"], loaded.words())
    first, second, both = (x @ sentences.T for x in (*halves, np.mean(halves, 0)))
    assert min(np.abs(first - both).max(), np.abs(second - both).max()) > 1e-3
    [classified] = found
    # Records come back in the order of their ids, as these are.
    np.testing.assert_allclose(classified.scores, both, atol=1e-5)
    assert [classified.labels[one] for one in classified.truth] == [one.label for one in records]


@pytest.mark.parametrize("model", ["vit3d", "trajvit"])
def test_a_head_learns_from_frozen_tokens(evaluated, long_records, tmp_path, model):
    options = ("--views=2", "--epochs=60", "--learning-rate=0.01", "--weight-decay=0.0", "--size=8")
    kept = f"--features={tmp_path / 'features'}"
    result = evaluated("probing", model, long_records, *options, kept)
    assert result.metrics["top1"].value == 100  # of the same clips
    assert result.notes["training videos"] == 8
    files = sorted(path.name for path in (tmp_path / "features" / "test").iterdir())
    assert files == ["about.json", "starts.npy", "values.bin"]
    again = evaluated("probing", model, long_records, *options, kept)
    plain = evaluated("probing", model, long_records, *options)
    assert again.metrics == plain.metrics == result.metrics


def test_features_of_something_else_are_refused(evaluated, runs, long_records, tmp_path, capsys):
    kept = f"--features={tmp_path / 'features'}"
    evaluated("probing", "vit3d", long_records, "--views=2", "--epochs=1", kept)
    given = [f"--workdir={runs('vit3d')}", f"--records={long_records}", kept, "--views=1"]
    assert command.main(protocol("probing"), given) == 2
    assert "features of something else (views: 2, not 1)" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["vit3d", "trajvit", "vivit", "tome", "automerge"])
def test_actions_in_boxes(evaluated, boxed_records, model):
    options = ("--epochs=60", "--learning-rate=0.01", "--weight-decay=0", "--boxes-a-step=8")
    result = evaluated("detection", model, boxed_records, *options)
    assert (result.count, result.of) == (8, 8)
    assert result.notes["boxes"] == 16 and result.notes["classes with a box"] == 3
    ways = {"trajvit": "trajectories", "vivit": "factorized", "automerge": "weights"}
    assert result.notes["tokens by"] == ways.get(model, "map")
    if model == "trajvit":
        # The square lies in its box; in the other box no trajectory lies: it is missed.
        assert result.notes["boxes without a token"] == 8
        assert result.notes["average precision"]["sit"] == 0
        assert result.metrics["map"].value == pytest.approx(200 / 3)
    elif model == "vit3d":
        assert result.metrics["map"].value == pytest.approx(100)


@pytest.mark.parametrize("model", ["trajvit", "vivit"])
def test_tokens_of_boxes_are_kept_for_other_heads(evaluated, boxed_records, tmp_path, model):
    options = ("--epochs=2", "--boxes-a-step=8")
    kept = (f"--features={tmp_path / 'features'}", "--feature-dtype=float32")
    result = evaluated("detection", model, boxed_records, *options, *kept)
    files = sorted(path.name for path in (tmp_path / "features" / "test").iterdir())
    assert files == ["about.json", "starts.npy", "values.bin"]
    again = evaluated("detection", model, boxed_records, *options, *kept)
    plain = evaluated("detection", model, boxed_records, *options)
    assert result.metrics == again.metrics == plain.metrics
    assert result.notes == again.notes == plain.notes


def test_an_action_outside_the_list_is_told_at_the_first_record(
    runs, boxed_records, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(detection, "box_tokens", lambda *_: pytest.fail("computed already"))
    classes = tmp_path / "classes.txt"
    classes.write_text("walk\nspeak\nsit\n")
    where = (f"--workdir={runs('vit3d')}", f"--records={boxed_records}", f"--classes={classes}")
    said = fails("detection", capsys, *where)
    assert "record 'clip00' is labelled 'talk', which is none of the 3 classes" in said


def test_given_boxes(evaluated, runs, boxed_records, tmp_path, capsys, monkeypatch):
    boxes = tmp_path / "boxes.csv"
    given = [f"--workdir={runs('vit3d')}", f"--records={boxed_records}", f"--boxes={boxes}"]
    boxes.write_text("film9,2,0.0,0.0,0.5,1.0,,0.9\n")
    with monkeypatch.context() as patched:
        patched.setattr(detection, "box_tokens", lambda *_: pytest.fail("computed already"))
        assert command.main(protocol("detection"), given) == 2
    assert "none of 1 frames with given boxes is among the 8" in capsys.readouterr().err
    rows = [f"film{i // 2},2,0.0,0.0,0.5,1.0,,0.9" for i in range(8)]
    boxes.write_text("\n".join([*rows, "film0,2,0.5,0.0,1.0,1.0,,0.1"]) + "\n")
    asked = (f"--boxes={boxes}", "--epochs=1", "--most-pairs=2")
    result = evaluated("detection", "vit3d", boxed_records, *asked)
    assert result.notes["boxes from"] == str(boxes)
    assert result.notes["pairs of box and action that count"] == "2 a frame"
    assert result.notes["boxes"] == 16  # two rows of a film are the boxes of its two clips
    boxes.write_text("film0,2,0.0,0.0,1.5,1.0,,0.9\n")
    given = [f"--workdir={runs('vit3d')}", f"--records={boxed_records}", f"--boxes={boxes}"]
    assert command.main(protocol("detection"), given) == 2
    assert "boxes.csv line 1: the box [0.0, 0.0, 1.5, 1.0] is empty or leaves" in (
        capsys.readouterr().err
    )


def test_descriptions_of_one_video(evaluated, boxed_records):
    result = evaluated("temporal_clips", "vit3d", boxed_records)
    assert (result.notes["videos"], result.notes["clips"], result.count) == (4, 8, 8)
    assert result.metrics["chance"].value == 50
    assert set(result.metrics) >= {"vid2txt", "txt2vid", "vid2txt_over_clips"}


@pytest.mark.parametrize("model", ["vit3d", "trajvit"])
def test_fewer_frames_of_the_same_records(evaluated, long_records, model):
    result = evaluated("scaling", model, long_records, "--at=2,8")
    values = {name: one.value for name, one in result.metrics.items()}
    if model == "vit3d":  # a tubelet has two frames
        assert (values["2/tokens"], values["8/tokens"]) == (1 + 4, 1 + 16)
        assert values["8/gflop"] > 3 * values["2/gflop"]
    else:  # a trajectory is one token, however long it is
        assert values["2/tokens"] == values["8/tokens"] == 3
    assert values["8/memory_mib"] > values["2/memory_mib"] and values["8/seconds"] > 0
    assert ("whose making is in no FLOP" in result.notes["trajectories"]) == (model == "trajvit")


# Bad input


def fails(name, capsys, *options):
    """What the command says, which ends with 2 and leaves the run's folder as it was."""
    [workdir] = [own.partition("=")[2] for own in options if own.startswith("--workdir=")]
    before = sorted(Path(workdir).rglob("*"))
    assert command.main(protocol(name), list(options)) == 2
    assert sorted(Path(workdir).rglob("*")) == before
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    return said


def test_a_checkpoint_of_another_architecture_is_told(runs, toy_records, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(runs("vit3d"), workdir)
    noted = json.loads((workdir / "settings.json").read_text())
    noted["model"]["encoder"]["width"] = 48
    (workdir / "settings.json").write_text(json.dumps(noted))
    said = fails("retrieval", capsys, f"--workdir={workdir}", f"--records={toy_records}")
    assert "does not fit this config's model" in said


def test_a_label_outside_the_list_is_named(runs, toy_records, tmp_path, capsys):
    classes = tmp_path / "classes.txt"
    classes.write_text("red\ngreen\nblue\ngray\n")
    target = tmp_path / "result.json"
    said = fails(
        "classification",
        capsys,
        f"--workdir={runs('vit3d')}",
        f"--records={toy_records}",
        f"--classes={classes}",
        f"--json={target}",
    )
    assert (
        "is labelled 'grey', which is none of the 4 classes" in said
        and "did you mean 'gray'?" in said
    )
    assert not target.exists()


def test_too_few_frames_are_told_before_anything_is_compiled(
    runs, toy_records, long_records, capsys
):
    where = (f"--workdir={runs('vit3d')}", f"--records={toy_records}")
    said = fails("retrieval", capsys, *where, "--frames=8")
    assert "record 'clip00' has 4 frames, 8 frames are to be read" in said
    assert "frames=8)" in said
    assert "multiples of 2 frames, not 3" in fails("retrieval", capsys, *where, "--frames=3")
    said = fails("probing", capsys, where[0], f"--records={long_records}")
    assert "has 8 frames, 4 views of 4 frames" in said and "lower --frames or --views" in said


def test_heads_that_cannot_be_trained_are_told_before_features(runs, boxed_records, capsys):
    where = (f"--workdir={runs('vit3d')}", f"--records={boxed_records}", "--views=1")
    for options, reason in (
        (("--learning-rate=0",), "--learning-rate=0.0 must be above 0"),
        (("--learning-rate=nan",), "--learning-rate=nan must be above 0"),
        (("--weight-decay=-1",), "--weight-decay=-1.0 must be at least 0"),
        (("--heads=-2",), "--heads=-2 must be at least 0"),
        (("--heads=5",), "--heads=5 cannot share tokens of width 32"),
    ):
        for name, own in (("probing", where), ("detection", where[:2])):
            # There is no such split: features would be what fails first.
            said = fails(name, capsys, *own, *options, "--train-split=none")
            assert reason in said, (name, options)


def test_frames_that_cannot_be_read_are_told_before_others_are_measured(
    runs, long_records, capsys, monkeypatch
):
    monkeypatch.setattr(scaling, "measure_at", lambda *_, **__: pytest.fail("measured already"))
    where = (f"--workdir={runs('vit3d')}", f"--records={long_records}")
    assert "multiples of 2 frames, not 3" in fails("scaling", capsys, *where, "--at=4,3")
    assert "has 8 frames, 16 frames are" in fails("scaling", capsys, *where, "--at=4,16")
    assert "lower --at" in fails("scaling", capsys, *where, "--at=4,16")
    assert "give --at=4" in fails("scaling", capsys, *where, "--frames=4")
    assert "is the split that is measured" in fails(
        "probing", capsys, *where, "--split=train", "--views=1"
    )


def test_records_without_what_a_protocol_reads(runs, toy_records, long_records, capsys):
    where = (f"--workdir={runs('vit3d')}", f"--records={toy_records}")
    without_boxes = (where[0], f"--records={long_records}")
    assert "has no boxes; add 'boxes'" in fails("detection", capsys, *without_boxes)
    assert "does not say which video" in fails("temporal_clips", capsys, *where)
    assert "has no split 'tset'" in fails("retrieval", capsys, *where, "--split=tset")


def test_boxes_that_leave_the_frame_are_counted_and_named(
    evaluated, boxed_records, toy_record, tmp_path
):
    folder = tmp_path / "records"
    shutil.copytree(boxed_records, folder)
    made = []
    for i in range(12):
        corners = np.array([LEFT if i else (0.5, 0.0, 1.25, 1.0)], np.float32)
        boxes = Boxes(corners, np.array([2.0], np.float32), ("walk",))
        made.append(dataclasses.replace(toy_record(i), boxes=boxes))
    write_records(folder, made, split="test")
    result = evaluated("detection", "vit3d", folder, "--epochs=1")
    assert (result.count, result.of) == (11, 12)
    assert result.missing[0]["id"] == "clip00"
    assert "[0.5, 0.0, 1.25, 1.0] that is empty or leaves" in result.missing[0]["reason"]


def test_an_annotated_frame_must_be_among_the_sampled_ones(runs, toy_record, tmp_path, capsys):
    boxes = Boxes(np.array([LEFT], np.float32), np.array([20.0], np.float32), ("walk",))
    for split in ("train", "test"):
        write_records(tmp_path, [dataclasses.replace(toy_record(0), boxes=boxes)], split=split)
    said = fails("detection", capsys, f"--workdir={runs('vit3d')}", f"--records={tmp_path}")
    assert "is annotated at 20.000 s, its nearest frame is at 3.000 s" in said


def test_videos_that_are_gone_are_counted_and_named(evaluated, toy_records, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(toy_records, folder)
    [info] = (folder / "shards").glob("*.json")
    noted = json.loads(info.read_text())
    noted["quarantine"] = [{"id": "x", "path": "x.mp4", "reason": "is empty", "remedy": "copy"}]
    info.write_text(json.dumps(noted))
    missing = tmp_path / "test.missing.txt"
    missing.write_text("y_0\tvideos/y.mp4\ny_1\tvideos/y.mp4\n\nclip00\tcame_later.mp4\n")
    result = evaluated("retrieval", "vit3d", folder, f"--missing={missing}")
    assert (result.count, result.of) == (12, 15)
    assert [one["id"] for one in result.missing] == ["x", "y_0", "y_1"]
    keep(read_beside(tmp_path / "test.jsonl"), folder, "test")  # as the extraction does
    assert evaluated("retrieval", "vit3d", folder).missing == result.missing


def test_what_one_of_several_folders_lacks_is_counted(evaluated, toy_record, tmp_path):
    for frames, videos in ((2, 6), (4, 5)):
        folder = tmp_path / f"of_{frames}"
        made = [toy_record(i, frames=frames) for i in range(videos)]
        write_records(folder, made, split="test")
        (tmp_path / "test.missing.txt").write_text(f"only_{frames}\tx.mp4\n")
        keep(read_beside(tmp_path / "test.jsonl"), folder, "test")
    result = evaluated("scaling", "vit3d", tmp_path / "of_{frames}", "--at=2,4")
    assert (result.count, result.of) == (5, 8)
    reasons = {one["id"]: one["reason"] for one in result.missing}
    assert reasons.pop("clip05") == "it is not among those of all --at"
    assert reasons == dict.fromkeys(("only_2", "only_4"), "it is not there")


def test_configs_say_which_protocol_they_are_for(runs, toy_records, tmp_path, capsys):
    config = tmp_path / "own.py"
    config.write_text(
        "import ml_collections\ndef get_config(arg=None):\n"
        "    return ml_collections.ConfigDict({'protocol': 'probing', 'veiws': 2}).lock()\n"
    )
    where = (f"--workdir={runs('vit3d')}", f"--records={toy_records}", f"--config={config}")
    said = fails("retrieval", capsys, *where)
    assert "is for python -m trajvit_jax.evals.probing, not for retrieval" in said
    assert "did you mean 'views'?" in fails("probing", capsys, *where)

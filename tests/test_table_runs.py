"""Rows of the tables are trained once, whoever trains them and however often that is cut off."""

from __future__ import annotations

import threading
import types

import jax
import numpy as np
import pytest

from benchmarks import ablations, comparison
from benchmarks.parts import (
    captioned_clips,
    table_command,
    table_costs,
    table_records,
    table_runs,
)
from benchmarks.parts.kept_measures import read_measures
from benchmarks.parts.table_clips import Clips, check_clips, clips_of
from benchmarks.parts.table_costs import StepCost
from benchmarks.parts.table_rows import Finished, Ledger
from benchmarks.parts.table_runs import run_row, train_rows, workdir_of
from tokenization.folder_lock import held, only_writer
from trajvit_jax.data.source import open_records
from trajvit_jax.evals.retrieval import Comparison
from trajvit_jax.run.json_lines import line

CLIPS = Clips(*({"world": {"train": name, "test": name}} for name in "ab"))


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Two rows of the world alone, whose records need not be there."""
    monkeypatch.setattr(table_runs, "clips_of", lambda _: CLIPS)
    return comparison.rows(["trajvit", "vit3d"], tmp_path, real=False)


def finished(row, seed):
    return Finished(
        name=row.name,
        seed=seed,
        made_of=row.made_of(),
        commits=("abc",),
        steps=2,
        parameters=10,
        tokens=(12.0, 12.0),
        dropped=0.0,
        minutes=1.0,
        clips=CLIPS.named,
        contents=CLIPS.contents,
        owners={"world": (0,)},
        learned=((1, 10.0), (2, 20.0)),
        loss=1.5,
        ranks={"world": {"txt2vid": (0,), "vid2txt": (0,)}},
        devices=("cpu",),
    )


def train_all(rows, seeds, path, output):
    return train_rows(rows, seeds, path, output, code="abc")


@pytest.fixture
def ran(monkeypatch):
    """What was trained, in order; what is put into `fails` raises."""
    calls, fails = [], {}

    def run(row, seed, output, *, code):
        calls.append((row.name, seed))
        if row.name in fails:
            raise fails[row.name]
        (workdir_of(row, seed, output) / "checkpoints").mkdir(parents=True)
        return finished(row, seed)

    monkeypatch.setattr(table_runs, "run_row", run)
    return calls, fails


def test_finished_rows_are_in_the_ledger_before_their_checkpoints_go(rows, ran, tmp_path):
    path = tmp_path / "rows.jsonl"
    trained = train_all(rows, (0, 1), path, tmp_path)
    assert ran[0] == [("trajvit", 0), ("vit3d", 0), ("trajvit", 1), ("vit3d", 1)]
    assert len(trained.done) == 4 and not trained.failed and not trained.elsewhere
    assert not list(tmp_path.glob("runs/*/checkpoints"))
    assert not train_all(rows, (0, 1), path, tmp_path).done and len(ran[0]) == 4


def test_a_lost_ledger_leaves_the_checkpoints(rows, ran, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Ledger, "add", full)
    trained = train_all(rows, (0,), tmp_path / "rows.jsonl", tmp_path)
    assert len(trained.failed) == 2 and not trained.done
    assert len(list(tmp_path.glob("runs/*/checkpoints"))) == 2


@pytest.mark.parametrize("error", [FloatingPointError("nan"), RuntimeError("XLA"), TypeError("x")])
def test_a_row_that_fails_does_not_keep_others_from_being_trained(rows, ran, tmp_path, error):
    ran[1]["trajvit"] = error
    trained = train_all(rows, (0,), tmp_path / "rows.jsonl", tmp_path)
    assert trained.failed == [f"trajvit, seed 0: {error}"]
    assert [one.name for one in trained.done] == ["vit3d"]


def test_rows_of_another_command_are_left_to_it(rows, ran, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    run = table_runs.run_row

    def meanwhile(row, seed, output, *, code):  # another command ends the row that would be next
        Ledger(path).add(finished(rows[1], seed))
        return run(row, seed, output, code=code)

    monkeypatch.setattr(table_runs, "run_row", meanwhile)
    trained = train_all(rows, (0,), path, tmp_path)
    assert ran[0] == [("trajvit", 0)] and len(trained.done) == 1
    with only_writer(workdir_of(rows[0], 1, tmp_path) / "row"):  # it trains, or evaluates
        trained = train_all(rows[:1], (1,), path, tmp_path)
    assert ran[0] == [("trajvit", 0)]
    assert trained.elsewhere == ["trajvit, seed 1"] and not trained.failed


def test_rows_of_other_clips_are_not_trained_beside_those_that_are(
    rows, ran, tmp_path, monkeypatch
):
    path = tmp_path / "rows.jsonl"
    train_all(rows, (0,), path, tmp_path)
    # The same clips anew, with other pixels: it goes on, and the table will tell.
    other = Clips(CLIPS.named, {"world": {"train": "c", "test": "d"}})
    monkeypatch.setattr(table_runs, "clips_of", lambda _: other)
    assert len(train_all(rows[:1], (0, 1), path, tmp_path).done) == 1
    for split, name in (("train", "trajvit"), ("test", "vit3d")):
        wrong = Clips({"world": CLIPS.named["world"] | {split: "z"}}, CLIPS.contents)
        monkeypatch.setattr(table_runs, "clips_of", lambda _, wrong=wrong: wrong)
        with pytest.raises(ValueError, match=f"not the same clips of world, split {split}"):
            train_all([row for row in rows if row.name == name], (0, 2), path, tmp_path)
    assert len(ran[0]) == 3
    # All being finished, nobody needs the clips.
    monkeypatch.delattr(table_runs, "clips_of")
    assert not train_all(rows, (0,), path, tmp_path).done


def test_what_a_run_found_is_read_again_and_not_trained(rows, tmp_path, monkeypatch):
    def train(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(table_runs, "train", train)
    with pytest.raises(AssertionError, match="trained"):
        run_row(rows[0], 0, tmp_path, code="abc")
    own = workdir_of(rows[0], 0, tmp_path) / "row"
    (own / "found.json").write_text(finished(rows[0], 0).line())
    assert run_row(rows[0], 0, tmp_path, code="abd") == finished(rows[0], 0)
    monkeypatch.setattr(table_runs, "clips_of", lambda _: Clips({"world": {"test": "z"}}, {}))
    with pytest.raises(ValueError, match="trajvit and trajvit have not the same clips"):
        run_row(rows[0], 0, tmp_path, code="abd")


def test_commands_of_one_folder_of_records_wait_for_each_other(tmp_path):
    made = []

    def make():
        try:
            table_records.make_records(tmp_path, "no such variant", None)
        except ValueError as error:
            made.append(str(error))

    with held(tmp_path / ".records.lock"):
        waiting = threading.Thread(target=make)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and not made
    waiting.join(60)
    assert "no such variant" in made[0]


def test_ranks_of_a_row_survive_its_line(rows):
    row = finished(rows[0], 1)
    assert Finished.read(row.line()) == row
    # Lines from before a row told its devices.
    assert Finished.read(row.line().replace(',"devices":["cpu"]', "")).devices == ("cpu",)
    assert np.isclose(row.recall("world", "txt2vid"), 100)


@pytest.fixture
def world_alone(monkeypatch):
    """No real clips; programs of other tests compile as they do."""
    monkeypatch.setattr(table_command, "use_quick_programs", lambda: None)
    monkeypatch.delenv(captioned_clips.VARIABLE, raising=False)


@pytest.fixture
def few(monkeypatch, world_alone):
    """Four clips of the world to train on, three to be asked about."""
    monkeypatch.setattr(table_records, "QUICK", ",train=4,test=3")


@pytest.mark.usefixtures("few")
def test_true_records_have_no_error_and_spoilt_ones_have(tmp_path):
    names = ["world_truth", "world_swapped50", "world_cut"]
    for name in names:
        variant = ablations.ABLATIONS[name].variant
        made = table_records.make_records(tmp_path, variant, None, quick=True)["world"]
        assert {split: one.videos for split, one in made.items()} == {"train": 4, "test": 3}
    truth, swapped, cut = ablations.errors([*names, "trajvit"], tmp_path).values()
    assert truth.lost == truth.switches == 0
    assert 0 < swapped.switches < cut.switches and min(swapped.lost, cut.lost) > 0.5


@pytest.mark.usefixtures("few")
def test_clips_are_told_apart_by_what_they_hold_and_not_by_the_time_of_their_files(tmp_path):
    def made(name, variant):
        [row] = comparison.rows(["trajvit"], tmp_path / name, real=False, quick=True)
        table_records.make_records(tmp_path / name, variant, None, quick=True)
        folder = tmp_path / name / "records"
        if variant != "trajectories":
            (folder / variant).rename(folder / "trajectories")
        return row.settings(0), clips_of(row.settings(0))

    (settings, one), (others, other), (_, cut) = (
        made(*of) for of in (("a", "truth"), ("b", "truth"), ("c", "truth_cut"))
    )
    folders = (of.data.train_sources[0].path for of in (settings, others))
    assert len({open_records(folder, "train").fingerprint for folder in folders}) == 2
    assert one == other and cut.named == one.named
    assert all(
        cut.contents["world"][split] != one.contents["world"][split] for split in ("train", "test")
    )
    check_clips([("a", one.named), ("a", other.named), ("b", cut.named)])


@pytest.mark.usefixtures("few")
def test_errors_are_of_the_clips_that_were_cut(tmp_path, monkeypatch):
    table_records.make_records(tmp_path, "truth", None, quick=True)
    read = ablations.open_records
    # The first clip was given up: what is left is paired by name, not by place.
    monkeypatch.setattr(ablations, "open_records", lambda *of: list(read(*of))[1:])
    error = ablations.errors(["world_truth"], tmp_path)["world_truth"]
    assert error.lost == error.switches == 0


@pytest.mark.usefixtures("few")
def test_a_row_is_kept_before_anything_can_be_lost(tmp_path, monkeypatch):
    table_records.make_records(tmp_path, "truth", None, quick=True)
    [row] = ablations.rows(["world_truth"], tmp_path, real=False, steps=2, quick=True)
    workdir, calls = workdir_of(row, 0, tmp_path), []

    def train(_, folder):
        calls.append("train")
        assert jax.config.jax_default_matmul_precision == "highest"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        log = [
            {"step": 1, "loss": 2.0, "dropped": 3, "tokens": 17},
            {"step": 2, "loss": None, "dropped": 0, "tokens": 20},
            {"step": 2, "eval/txt2vid_r5": 10, "eval/vid2txt_r5": 30},
        ]
        (folder / "metrics.jsonl").write_text("".join(map(line, log)))
        return {"parameters": 7.0}

    def compare(*_, **__):
        calls.append("compare")
        if len(calls) == 2:
            raise KeyboardInterrupt
        similarity = np.array([[1, 0, 2], [0, 1, 2], [0, 0, 1]], np.float32)
        return Comparison(similarity, np.eye(3, dtype=bool), ("a", "b", "c"))

    model = types.SimpleNamespace(model=None, words=lambda: None)
    for name, fake in {"train": train, "compare": compare, "load": lambda _: model}.items():
        monkeypatch.setattr(table_runs, name, fake)
    path = tmp_path / "rows.jsonl"
    gpu = types.SimpleNamespace(device_kind="NVIDIA H200")
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as context:
        context.setattr(table_runs.jax, "devices", lambda: [gpu])
        # Stopped in the evaluation: the run is still there.
        train_rows([row], (0,), path, tmp_path, code="abc")
    assert (workdir / "checkpoints").exists() and not path.exists()
    found = run_row(row, 0, tmp_path, code="abd")
    assert found.ranks["world"] == {"txt2vid": (0, 0, 2), "vid2txt": (1, 1, 0)}
    assert found.owners == {"world": (0, 1, 2)} and found.parameters == 7
    assert found.learned == ((2, 20.0),) and (found.loss, found.dropped) == (2.0, 15.0)
    assert found.devices == ("NVIDIA H200", "cpu")
    assert found.commits == ("abc", "abd") and set(found.clips["world"]) == {"train", "test"}
    assert (workdir / "row/found.json").exists() and (workdir / "checkpoints").exists()
    trained = train_all([row], (0,), path, tmp_path)  # stopped before the ledger had it
    assert trained.done == [found] and calls == ["train", "compare"] * 2
    assert Ledger(path).find(row, 0) == found and not (workdir / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("world_alone")
def test_the_comparison_trains_what_it_names(tmp_path):
    options = comparison.parse(["--quick", "--models=rlt,vivit"])
    options.ledger = tmp_path / "rows.jsonl"
    told = comparison.run(options, tmp_path)
    trained = told.trained
    assert [one.name for one in trained.done] == ["rlt", "vivit"] and len(told.numbers) == 2
    for one in trained.done:
        ranks = one.ranks["world"]
        assert len(ranks["txt2vid"]) == len(one.owners["world"]) and len(ranks["vid2txt"]) == 4
        assert [step for step, _ in one.learned] == [2] and one.loss > 0
    # What changed is what RLT reads: fewer tubelets than there are, each clip its own number.
    assert 49 < trained.done[0].tokens[0] < 196 == trained.done[1].tokens[0]
    assert not comparison.run(options, tmp_path).trained.done


@pytest.mark.slow
@pytest.mark.usefixtures("world_alone")
def test_costs_of_steps_are_measured_and_kept(tmp_path):
    options = comparison.parse(["--quick", "--costs", "--models=rlt", "--rounds=1"])
    options.ledger = tmp_path / "rows.jsonl"
    comparison.run(options, tmp_path)
    [row] = comparison.rows(["rlt"], tmp_path, real=False, steps=2, quick=True)
    cost = read_measures(table_costs.path_beside(options.ledger), StepCost)["rlt"]
    assert cost.made_of == row.made_of() and cost.seconds > 0 and cost.megabytes > 0


@pytest.mark.slow
@pytest.mark.usefixtures("world_alone")
def test_the_ablations_train_what_they_name(tmp_path, capsys):
    arguments = ["--quick", "--rows=world_truth,world_cut", f"--output={tmp_path}"]
    assert ablations.main(arguments) == 0
    said = capsys.readouterr().out
    assert "a new identity in every frame" in said and "two steps teach nothing" in said


@pytest.mark.usefixtures("few")
def test_a_command_that_failed_says_so(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(table_runs, "train", fails)
    assert comparison.main(["--quick", "--models=rlt", f"--output={tmp_path}"]) == 1
    assert "no row is finished" in capsys.readouterr().out


@pytest.mark.parametrize("command", [comparison, ablations])
def test_made_records_are_trained_on_where_the_clips_are_not(command, tmp_path, monkeypatch):
    def make(*_, **__):
        raise AssertionError("makes records")

    page = tmp_path / "PAGE.md"
    page.write_text("as it is")
    monkeypatch.setattr(table_records, "make_records", make)
    monkeypatch.delenv(captioned_clips.VARIABLE, raising=False)
    seen = []

    def train(rows, *_, **__):
        seen.extend(row.config for row in rows)
        return table_runs.Trained()

    monkeypatch.setattr(command, "train_rows", train)
    where = [f"--output={tmp_path}", f"--ledger={tmp_path / 'rows.jsonl'}", f"--page={page}"]
    assert command.main(["--made", *where]) == 0
    # The real clips are in those records: rows of the world alone are others.
    assert seen and "exercises=0.0" not in seen[0] and page.read_text() == "as it is"
    with pytest.raises(SystemExit):
        command.main(["--made", "--table", *where])

"""Rows of the tables are trained once, whoever trains them and however often that is cut off."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import comparison, table_runs
from benchmarks.table_rows import Finished, Ledger
from benchmarks.table_runs import run_row, train_rows, workdir_of
from tokenization.folder_lock import FolderInUse

LEARNED = {"owners": {"world": (0,)}, "learned": ((1, 10.0), (2, 20.0)), "loss": 1.5}
RECORDS = {"world": {"train": "a", "test": "b"}}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Two rows of the world alone, whose records need not be there."""
    monkeypatch.setattr(table_runs, "fingerprints", lambda _: RECORDS)
    return comparison.rows(["trajvit", "vit3d"], tmp_path, real=False)


def finished(row, seed, **changed):
    ranks = {"world": {"txt2vid": (0,), "vid2txt": (0,)}}
    own = (row.name, seed, row.made_of(), "abc", 2, 10, (12.0, 12.0), 1.0, RECORDS)
    return Finished(*own, clips={"world": "c"}, ranks=ranks, **LEARNED | changed)


@pytest.fixture
def ran(monkeypatch):
    """What was trained, in order; what is put into `fails` raises."""
    calls, fails = [], {}

    def run(row, seed, output):
        calls.append((row.name, seed))
        if row.name in fails:
            raise fails[row.name]
        (workdir_of(row, seed, output) / "checkpoints").mkdir(parents=True)
        return finished(row, seed)

    monkeypatch.setattr(table_runs, "run_row", run)
    return calls, fails


def test_finished_rows_are_in_the_ledger_before_their_checkpoints_go(rows, ran, tmp_path):
    path = tmp_path / "rows.jsonl"
    trained = train_rows(rows, (0, 1), path, tmp_path)
    assert ran[0] == [("trajvit", 0), ("vit3d", 0), ("trajvit", 1), ("vit3d", 1)]
    assert len(trained.done) == 4 and not trained.failed and not trained.elsewhere
    assert not list(tmp_path.glob("runs/*/checkpoints"))
    assert not train_rows(rows, (0, 1), path, tmp_path).done and len(ran[0]) == 4


def test_a_lost_ledger_leaves_the_checkpoints(rows, ran, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Ledger, "add", full)
    with pytest.raises(OSError, match="no space"):
        train_rows(rows, (0,), tmp_path / "rows.jsonl", tmp_path)
    assert len(list(tmp_path.glob("runs/*/checkpoints"))) == 1


@pytest.mark.parametrize("error", [FloatingPointError("nan"), RuntimeError("XLA"), ValueError("x")])
def test_a_row_that_fails_does_not_keep_others_from_being_trained(rows, ran, tmp_path, error):
    ran[1]["trajvit"] = error
    trained = train_rows(rows, (0,), tmp_path / "rows.jsonl", tmp_path)
    assert trained.failed == [f"trajvit, seed 0: {error}"]
    assert [one.name for one in trained.done] == ["vit3d"]


def test_rows_of_another_command_are_left_to_it(rows, ran, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    run = table_runs.run_row

    def meanwhile(row, seed, output):  # another command ends the row that would be next
        Ledger(path).add(finished(rows[1], seed))
        return run(row, seed, output)

    monkeypatch.setattr(table_runs, "run_row", meanwhile)
    trained = train_rows(rows, (0,), path, tmp_path)
    assert ran[0] == [("trajvit", 0)] and len(trained.done) == 1
    ran[1]["trajvit"] = FolderInUse("in use")
    trained = train_rows(rows, (1,), path, tmp_path)
    assert trained.elsewhere == ["trajvit, seed 1"] and not trained.failed


def test_a_row_of_other_records_is_not_taken_for_this_one(rows, ran, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    train_rows(rows, (0,), path, tmp_path)
    monkeypatch.setattr(table_runs, "fingerprints", lambda _: {"world": {"train": "z"}})
    with pytest.raises(ValueError, match="trajvit, seed 0, of other records of world"):
        train_rows(rows, (0,), path, tmp_path)


def test_what_a_run_found_is_read_again_and_not_trained(rows, tmp_path, monkeypatch):
    def train(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(table_runs, "train", train)
    with pytest.raises(AssertionError, match="trained"):
        run_row(rows[0], 0, tmp_path)
    workdir = workdir_of(rows[0], 0, tmp_path)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "row.json").write_text(finished(rows[0], 0).line())
    assert run_row(rows[0], 0, tmp_path) == finished(rows[0], 0)


def test_commands_of_one_folder_of_records_wait_for_each_other(tmp_path):
    import threading

    from benchmarks import table_records
    from tokenization.folder_lock import held

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
    assert np.isclose(row.recall("world", "txt2vid"), 100)

"""Checkpoints: what is kept, what is found broken, and onto which devices they go."""

from __future__ import annotations

import dataclasses
import errno
import gc
import itertools
import json
import logging
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trajvit_jax import checkpoints as checkpoints_module
from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.run.checkpoint_files import load_arrays
from trajvit_jax.run.checksums import checksums
from trajvit_jax.run.whole_files import note_files
from trajvit_jax.state import TrainState


@pytest.fixture(scope="module")
def new_state():
    """A state of few arrays whose every number says which step it is of."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(600, 640)), jnp.float32)

    def make(step: int) -> TrainState:
        params = nnx.State(
            {
                "layer": {"kernel": nnx.Param(kernel + step), "bias": nnx.Param(jnp.ones(640))},
                "temperature": nnx.Param(jnp.float32(step / 16)),
            }
        )
        stats = nnx.State({"layer": {"mean": nnx.BatchStat(jnp.full(3, step, jnp.float32))}})
        opt_state = optax.adam(1.0).init(params)
        # Its arrays are one file of more than a megabyte.
        return TrainState(jnp.int32(step), params, stats, opt_state, None, graph=None)

    return make


@pytest.fixture(scope="module")
def saved(new_state, tmp_path_factory):
    """A workdir with checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved")
    with Checkpoints(workdir) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, new_state(step), clock={"videos": 8 * step})
    return workdir


def same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_was_saved_comes_back(saved, new_state):
    state = new_state(2)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    with Checkpoints(saved, read_only=True) as checkpoints:
        for like in (new_state(0), shapes):
            found = checkpoints.resume(like)
            assert (found.step, found.clock, found.metrics) == (2, {"videos": 16}, {})
            same(found.state, state)
        same(checkpoints.restore(shapes, step=1), new_state(1))
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 3 .* there are 1, 2"):
            checkpoints.restore(shapes, step=3)


def test_arrays_are_read_without_a_model(saved, new_state):
    arrays = load_arrays(saved)
    temperature = new_state(2).params["temperature"][...]
    assert arrays["step"] == 2 and arrays["params.temperature"] == temperature
    assert len(arrays) == len(jax.tree.leaves(new_state(2).arrays()))
    assert load_arrays(saved, step=1)["step"] == 1
    with pytest.raises(FileNotFoundError, match="no checkpoint 7"):
        load_arrays(saved, step=7)


def files_of(step_folder):
    """Files whose loss must be found, by kind."""
    data = sorted(
        step_folder.glob("state/ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size
    )
    return {
        "run": step_folder / "run" / "metadata",
        "tree": step_folder / "state" / "_METADATA",
        "sharding": step_folder / "state" / "_sharding",
        "metadata of arrays": step_folder / "state" / "array_metadatas" / "process_0",
        "manifest": step_folder / "state" / "manifest.ocdbt",
        "index": next(iter(step_folder.glob("state/d/*"))),
        "data": max(data, key=lambda path: path.stat().st_size),
        "list": step_folder / "files.json",
    }


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    """One bit, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 16
    path.write_bytes(data)


KINDS = ("run", "tree", "sharding", "metadata of arrays", "manifest", "index", "data", "list")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_is_taken(
    saved, new_state, tmp_path, caplog, kind
):
    expected, like = new_state(1), new_state(0)
    for damage in (cut, empty, flip, Path.unlink):
        workdir = tmp_path / "run"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(saved, workdir)
        folder = workdir / "checkpoints"
        damage(files_of(folder / "2")[kind])
        with Checkpoints(workdir) as checkpoints, caplog.at_level(logging.WARNING):
            found = checkpoints.resume(like)
        assert found.step == 1 and found.clock == {"videos": 8}
        same(found.state, expected)
        assert "checkpoints/2 cannot be read" in caplog.text and "2.broken" in caplog.text
        assert sorted(path.name for path in folder.iterdir()) == ["1", "2.broken"]
        caplog.clear()


def test_a_folder_that_lost_its_arrays_is_passed_over_by_a_reader_too(saved, new_state, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "2" / "state")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.resume(new_state(0)).step == 1
        with pytest.raises(ValueError, match="checkpoints/2 cannot be read"):
            checkpoints.restore(new_state(0), step=2)
    assert (tmp_path / "checkpoints" / "2").exists()  # not a reader's to move


def test_with_no_checkpoint_left_a_run_does_not_start_anew(saved, new_state, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    for step in ("1", "2"):
        (tmp_path / "checkpoints" / step / "run" / "metadata").unlink()
    for _ in range(2):  # a restarted run, too
        with Checkpoints(tmp_path) as checkpoints:
            reason = r"no checkpoint .* can be read \(1\.broken, 2\.broken\).*another --workdir"
            with pytest.raises(ValueError, match=reason):
                checkpoints.resume(new_state(0))


def test_a_workdir_without_checkpoints_starts_anew(new_state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(new_state(0)) is None
        with pytest.raises(FileNotFoundError, match="train first"):
            checkpoints.restore(new_state(0))


TROUBLES = {
    "memory": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    "network": ValueError('UNAVAILABLE: Error reading "params/0.0" in OCDBT database'),
    "slow network": ValueError("DEADLINE_EXCEEDED: Error reading manifest"),
    "rights": ValueError('PERMISSION_DENIED: Error opening "zarr" driver'),
    "disk, by tensorstore": ValueError("UNKNOWN: Failed to read [os_error_code='5']"),
    "lost mount": ValueError("FAILED_PRECONDITION: Failed to open [os_error_code='116']"),
    "disk": OSError(errno.EIO, "Input/output error"),
    "stale handle": OSError(errno.ESTALE, "Stale file handle"),
    "no rights": PermissionError(errno.EACCES, "Permission denied"),
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize("where", ["find_damage", "read_run", "read_arrays"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_machine_in_trouble_is_no_proof_of_damage(saved, new_state, monkeypatch, trouble, where):
    def fail(*arguments):
        raise RuntimeError("wrapped") from TROUBLES[trouble]

    monkeypatch.setattr(f"trajvit_jax.checkpoints.{where}", fail)
    # Not read_only: one that is damaged would be renamed.
    told = pytest.raises(OSError, match=r"checkpoints/2 cannot be read now: .* left as it is")
    with Checkpoints(saved) as checkpoints, told:
        checkpoints.resume(new_state(0))
    assert sorted(path.name for path in (saved / "checkpoints").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "proof",
    [
        ValueError("DATA_LOSS: Error decoding manifest: CRC-32C checksum verification failed"),
        ValueError("NOT_FOUND: Error reading local file [os_error_code='2']"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
    ],
)
def test_what_proves_damage_sets_a_checkpoint_aside(saved, new_state, tmp_path, monkeypatch, proof):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    read_arrays = checkpoints_module.read_arrays

    def fail(folder, wanted):
        if folder.name == "2":
            raise RuntimeError("wrapped") from proof
        return read_arrays(folder, wanted)

    monkeypatch.setattr(checkpoints_module, "read_arrays", fail)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(new_state(0)).step == 1
    assert (tmp_path / "checkpoints" / "2.broken").exists()


def test_tensorstore_tells_of_the_system_s_errors_as_expected(saved, new_state, tmp_path):
    """A link to itself cannot be opened, whoever runs the tests."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    index = files_of(tmp_path / "checkpoints" / "2")["index"]
    index.unlink()
    index.symlink_to(index)
    note_files(tmp_path / "checkpoints" / "2")  # so that it is found on reading
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(OSError, match="cannot be read now"):
            checkpoints.resume(new_state(0))
        assert checkpoints.steps == (1, 2)


class TwoProcesses:
    """Two threads that are processes 0 and 1 to the code that asks."""

    def __init__(self, monkeypatch):
        self._own, self._barrier, self._values = threading.local(), threading.Barrier(2), [None] * 2
        monkeypatch.setattr(jax, "process_index", lambda: self.number)
        monkeypatch.setattr(checkpoints_module, "_anywhere", lambda value: any(self._gather(value)))
        monkeypatch.setattr(
            checkpoints_module, "from_first_process", lambda value: self._gather(value)[0]
        )
        monkeypatch.setattr(checkpoints_module, "_barrier", lambda name: self._gather(None))

    @property
    def number(self):
        return getattr(self._own, "number", 0)

    def _gather(self, value):
        self._values[self.number] = value
        self._barrier.wait(timeout=60)
        found = list(self._values)
        self._barrier.wait(timeout=60)
        return found

    def both(self, function):
        """What both returned, or raised."""

        def run(number):
            self._own.number = number
            try:
                return function()
            except Exception as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(run, (0, 1)))


@pytest.mark.parametrize("late", [2, 99], ids=["in time", "never"])
def test_files_that_one_process_does_not_see_yet_are_no_damage(
    saved, new_state, tmp_path, monkeypatch, late
):
    """The folder of a network, of which process 1 has an older view for so many looks."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    pod, find, looks = TwoProcesses(monkeypatch), checkpoints_module.find_damage, itertools.count()

    def look(folder):
        missed = pod.number == 1 and next(looks) < late
        return "files.json is missing" if missed else find(folder)

    monkeypatch.setattr(checkpoints_module, "find_damage", look)
    monkeypatch.setattr(checkpoints_module, "_LOOK_AGAIN", 0.0)
    monkeypatch.setattr(checkpoints_module, "_LOOKS", 4)
    with Checkpoints(tmp_path) as checkpoints:
        found = pod.both(lambda: checkpoints.resume(new_state(0)))
        assert checkpoints.steps == (1, 2)
    if late == 2:
        assert [one.step for one in found] == [2, 2]
    else:
        assert all(isinstance(one, OSError) for one in found)
        assert "2 cannot be read now" in str(found[0]) and "not for every process" in str(found[1])


def test_files_that_no_process_sees_are_damage(saved, new_state, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "2" / "files.json").unlink()
    pod = TwoProcesses(monkeypatch)
    with Checkpoints(tmp_path) as checkpoints:
        found = pod.both(lambda: checkpoints.resume(new_state(0)))
    assert [one.step for one in found] == [1, 1]
    assert (tmp_path / "checkpoints" / "2.broken").exists()


def test_metrics_may_come_later(new_state, tmp_path):
    with Checkpoints(tmp_path, keep=1, best="recall") as checkpoints:
        checkpoints.save(1, new_state(1))
        checkpoints.add_metrics(1, {"recall": 0.5})
        assert checkpoints.best_step == 1
    with Checkpoints(tmp_path, keep=1, best="recall") as checkpoints:
        assert checkpoints.resume(new_state(0)).metrics == {"recall": 0.5}
        checkpoints.save(2, new_state(2), metrics={"recall": 0.1}, wait=True)
        assert checkpoints.steps == (1, 2)


def test_the_best_stays_until_a_newer_one_is_known_to_be_better(new_state, tmp_path):
    with Checkpoints(tmp_path, keep=1, best="recall") as checkpoints:
        for step, recall, kept in ((1, 0.5, (1,)), (2, 0.7, (1, 2)), (3, 0.6, (2, 3))):
            checkpoints.save(step, new_state(step))
            assert checkpoints.steps == kept  # not measured yet
            checkpoints.add_metrics(step, {"recall": recall})
        assert checkpoints.best_step == 2


def test_another_type_is_a_misfit_by_name(saved, new_state):
    like = new_state(0)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), like.params)
    with Checkpoints(saved, read_only=True) as checkpoints:
        reason = r"params\.[\w.]+: float32\[.*\] there, bfloat16\[.*\] here"
        with pytest.raises(ValueError, match=reason):
            checkpoints.restore(dataclasses.replace(like, params=half))
        with pytest.raises(ValueError, match=r"average\.[\w.]+: nothing there"):
            checkpoints.restore(dataclasses.replace(like, average=like.params))


def test_the_newest_and_the_best_stay_also_after_a_restart(new_state, tmp_path):
    recalls = {1: 0.1, 2: 0.5, 3: float("nan"), 4: 0.2, 5: 0.3}
    for step, recall in recalls.items():
        with Checkpoints(tmp_path, keep=2, best="recall") as checkpoints:
            found = {"recall": recall, "answer_loss": recall}
            checkpoints.save(step, new_state(step), metrics=found)
    with Checkpoints(tmp_path, keep=2, best="recall") as checkpoints:
        assert checkpoints.steps == (2, 4, 5)
        assert (checkpoints.best_step, checkpoints.latest_step) == (2, 5)
        assert checkpoints.resume(new_state(0)).metrics == {"recall": 0.3, "answer_loss": 0.3}
    with Checkpoints(tmp_path, keep=1, best="answer_loss") as checkpoints:
        assert checkpoints.best_step == 4
        checkpoints.save(6, new_state(6))
        checkpoints.save(6, new_state(6))  # saved already
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 6]


def test_arrays_may_be_given_away_while_they_are_saved(new_state, tmp_path):
    add = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = jax.tree.map(jnp.copy, new_state(3))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
        for _ in range(20):
            state = add(state)
    with Checkpoints(tmp_path) as checkpoints:
        same(checkpoints.restore(new_state(0)), new_state(3))


def test_a_killed_save_leaves_nothing_that_counts(saved, new_state, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    half = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "2", half)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(new_state(0)).step == 2
        checkpoints.save(3, new_state(3), wait=True)
        assert checkpoints.latest_step == 3
    assert not half.exists()


# Orbax leaves other writes to themselves when one fails; they complain in threads.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_an_error_and_the_checkpoint_before_stays(new_state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, new_state(1), wait=True)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(OSError, match=r"could not be saved in .*the last one is 1"):
                checkpoints.save(2, new_state(2), wait=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(new_state(0)).step == 1


def test_what_a_failed_read_leaves_fails_no_later_test(saved, new_state, tmp_path):
    """Coroutines of orbax complain when they are collected: pyproject.toml lets them."""
    for attempt in range(6):
        workdir = tmp_path / str(attempt)
        shutil.copytree(saved, workdir)
        cut(files_of(workdir / "checkpoints" / "2")["data"])
        note_files(workdir / "checkpoints" / "2")  # so that it is found on reading
        with Checkpoints(workdir, read_only=True) as checkpoints:
            assert checkpoints.resume(new_state(0)).step == 1
        gc.collect()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_a_checksum_sees_every_single_change_and_swaps(dtype):
    values = np.random.default_rng(0).integers(0, 2, (5, 4)).astype(jnp.dtype(dtype))
    x = jnp.asarray(values)
    expected = checksums({"x": x})
    assert checksums({"x": jnp.array(values)}) == expected
    for i in range(x.size):
        changed = values.reshape(-1).copy()
        changed[i] = 1 - changed[i] if dtype != "bool" else not changed[i]
        assert checksums({"x": jnp.asarray(changed.reshape(5, 4))}) != expected
    assert checksums({"x": x[::-1]}) != expected


def test_arrays_that_come_back_changed_are_named(saved, new_state, tmp_path, caplog):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / "2" / "run" / "metadata"
    value = json.loads(path.read_text())["checksums"]["params.temperature"]
    path.write_text(path.read_text().replace(str(value), str(value ^ 1)))
    note_files(path.parent.parent)
    with Checkpoints(tmp_path) as checkpoints, caplog.at_level(logging.WARNING):
        assert checkpoints.resume(new_state(0)).step == 1
    assert "its values are not those that were saved: params.temperature" in caplog.text

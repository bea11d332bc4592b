"""Tokens come back as they were added, and what has no room is told before it is full."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pytest

from trajvit_jax.evals import token_store
from trajvit_jax.evals.token_store import Features, Store

ABOUT = {"dtype": "float16", "checkpoint": "a"}


def samples(*lengths, width=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)).astype(np.float32) for n in lengths]


def filled(folder, dtype, *batches):
    records = sum(map(len, batches))
    with Store(4, records, folder=folder, dtype=dtype).open() as store:
        done = 0
        for batch in batches:
            done += len(batch)
            store.add(batch, done=done)
    return store


def test_memory_and_folder_hold_the_same(tmp_path):
    batches = samples(3, 0, 2), samples(1, seed=1), samples(40, 0, 7, seed=2)  # more than foreseen
    kept = filled("", "float16", *batches).kept(ABOUT, None)
    filled(tmp_path / "a", "float16", *batches).kept(ABOUT, {"of": [1, 2]})
    stored, notes = token_store.read(tmp_path / "a", ABOUT)
    assert notes == {"of": [1, 2]}
    assert kept.lengths.tolist() == stored.lengths.tolist() == [3, 0, 2, 1, 40, 0, 7]
    expected = np.concatenate([one for batch in batches for one in batch]).astype(np.float16)
    for found in (kept, stored):
        assert found.values.dtype == np.float16 and found.longest == 40
        np.testing.assert_array_equal(found.values, expected)


def test_samples_without_tokens_are_left_out():
    found = Features.of(samples(0, 2, 0, 3, 0))
    full = found.with_tokens()
    assert len(found) == 5 and full.lengths.tolist() == [2, 3]
    values, used = full.batch(np.array([1, 0]), 3)
    np.testing.assert_array_equal(values[0], found.values[2:])
    np.testing.assert_array_equal(values[1], [*found.values[:2], np.zeros(4)])
    assert used.tolist() == [[True] * 3, [True, True, False]]


def test_no_token_at_all(tmp_path):
    filled(tmp_path, "float32", samples(0, 0)).kept({"dtype": "float32"}, None)
    found, _ = token_store.read(tmp_path, {"dtype": "float32"})
    assert found.lengths.tolist() == [0, 0] and found.width == 4


def test_a_batch_reaches_the_cpu_without_a_copy():
    if jax.default_backend() != "cpu":
        pytest.skip("memory of another device")
    values, _ = Features.of(samples(5, 6, width=40)).batch(np.array([1, 0]), 6)
    where = jax.device_put(values).unsafe_buffer_pointer()
    assert where == values.ctypes.data


def test_what_is_half_written_is_nothing(tmp_path):
    def broken():
        yield samples(2)[0]
        raise OSError("disk")

    with (
        pytest.raises(OSError, match="disk"),
        Store(4, 2, folder=tmp_path / "a", dtype="float32").open() as store,
    ):
        store.add(broken(), done=2)
    assert token_store.read(tmp_path / "a", ABOUT) is None
    assert list((tmp_path / "a").iterdir()) == []


def test_features_of_something_else(tmp_path):
    filled(tmp_path, "float16", samples(2)).kept(ABOUT, None)
    with pytest.raises(ValueError, match=r"something else \(checkpoint: 'a', not 'b'\)"):
        token_store.read(tmp_path, ABOUT | {"checkpoint": "b"})


@pytest.mark.parametrize(("dtype", "half"), [("float32", True), ("float16", False)])
def test_too_little_memory_is_told_at_the_first_batch(monkeypatch, dtype, half):
    size = np.dtype(dtype).itemsize
    monkeypatch.setattr(token_store, "free_memory", lambda: 100 * 4 * size)
    with Store(4, 50, folder="", dtype=dtype).open() as store:
        store.add(samples(2, 2), done=2)  # 100 in all
        with pytest.raises(ValueError, match=r"tokens of 50 records .*--features=FOLDER") as told:
            store.add(samples(20), done=3)
        assert ("--feature-dtype=float16" in str(told.value)) == half


def test_too_small_a_disk_is_told_at_the_first_batch(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1000))
    with (
        pytest.raises(ValueError, match="name a folder with more room"),
        Store(4, 1000, folder=tmp_path / "a", dtype="float32").open() as store,
    ):
        store.add(samples(2), done=1)
    filled(tmp_path / "b", "float32", samples(62))  # 992 bytes

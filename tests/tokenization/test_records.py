"""Records: what goes in comes out, and a half-written shard is never read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tokenization import folder_lock, records, shard_files, shards
from tokenization.records import Boxes, Quarantined, Record, RecordsError, ShardInfo
from tokenization.trajectories import Trajectories, VideoInfo

SIZE = 32


def make(name: str, frames: int = 4, n: int = 5) -> Record:
    rng = np.random.default_rng(len(name) + n)
    labels = np.sort(rng.integers(0, n + 1, (frames, SIZE, SIZE)), axis=-1)
    key_frames = np.zeros(frames, bool)
    key_frames[0] = True
    trajectories = Trajectories.from_labels(
        labels,
        frame_times=np.arange(frames, dtype=np.float32) / 8,
        key_frames=key_frames,
        video=VideoInfo(name, 640, 360, 29.97, 3.5),
        made_by={"segmenter": "classical", "settings": {"é": [1, 2.5, None]}},
    )
    rgb = np.broadcast_to(np.uint8([200, 90, 30]), (frames, SIZE, SIZE, 3)).copy()
    return Record(trajectories, rgb)


FULL = dataclasses.replace(
    make("full", frames=3, n=300),
    captions=("a dog runs", "ein Hund läuft"),
    label="running",
    boxes=Boxes(np.float32([[0, 0.25, 0.5, 1]]), np.float32([1.5]), ("dog",)),
    extra={"frames": 85, "nested": {"a": [1]}},
)


def same(a: Record, b: Record) -> None:
    assert a.trajectories == b.trajectories
    assert (a.captions, a.label, dict(a.extra)) == (b.captions, b.label, dict(b.extra))
    assert (a.boxes is None) == (b.boxes is None)
    if a.boxes and b.boxes:
        np.testing.assert_array_equal(a.boxes.corners, b.boxes.corners)
        np.testing.assert_array_equal(a.boxes.times, b.boxes.times)
        assert a.boxes.labels == b.boxes.labels
    assert np.abs(a.frames.astype(int) - b.frames).max() <= 6  # JPEG


def test_round_trip_over_shards_and_splits(tmp_path):
    train = [make("a"), FULL, make("image", frames=1), make("empty", n=0), make("e", frames=7)]
    shards.write_records(tmp_path, train, shard_size=2)
    shards.write_records(tmp_path, [make("t")], split="test")
    source = records.open_records(tmp_path, "train")
    assert len(source) == 5
    for written, read in zip(train, source, strict=True):
        same(written, read)
    assert source[-1].id == "e" and [r.id for r in source[1:3]] == ["full", "image"]
    assert source.counts.tolist() == [len(record.trajectories) for record in train]
    assert [r.id for r in records.open_records(tmp_path, "test")] == ["t"]
    with pytest.raises(IndexError, match="has no record 5"):
        source[5]


def test_captions_are_read_at_random_as_records_are(tmp_path):
    shards.write_records(tmp_path, [make("a"), FULL])
    captions = records.open_captions(tmp_path)
    assert captions[-1] == captions[1] == FULL.captions
    assert captions[-2:] == [(), FULL.captions]
    for outside in (2, -3):
        with pytest.raises(IndexError, match=f"has no record {outside}"):
            captions[outside]


def test_a_record_is_known_as_it_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, FULL.frames.shape, dtype=np.uint8)
    record = dataclasses.replace(FULL, frames=noise)
    shards.write_records(tmp_path, [record])
    [read] = records.open_records(tmp_path)
    np.testing.assert_array_equal(record.as_stored().frames, read.frames)
    assert np.abs(read.frames.astype(int) - noise).max() > 20


def test_records_pickle_for_loader_processes(tmp_path):
    shards.write_records(tmp_path, [FULL])
    source = pickle.loads(pickle.dumps(records.open_records(tmp_path)))
    same(source[0], FULL)


def test_many_shards_need_few_open_files(tmp_path, monkeypatch):
    """With a limit on open files that leaves far fewer than there are shards, from many threads."""
    monkeypatch.setattr(shard_files, "MOST_OPEN", 4)
    names = [f"clip{i:02d}" for i in range(40)]
    shards.write_records(tmp_path, [make(name, n=1) for name in names], shard_size=1)
    source = records.open_records(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = {int(path.name) for path in Path("/dev/fd").iterdir()}
    free = [number for number in range(len(in_use) + 20) if number not in in_use]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[19] + 1, hard))
    try:
        order = np.random.default_rng(0).permutation(80) % 40
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda i: source[i].id, order.tolist()))
        assert list(records.read_captions(tmp_path)) == [()] * 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read == [names[i] for i in order]


def test_shards_are_read_at_random_singly_and_together(tmp_path):
    shards.write_records(tmp_path, [make(name) for name in "abcde"], shard_size=2)
    source = records.open_records(tmp_path)
    files = shard_files.ShardFiles(tmp_path, "train", [2, 2, 1])
    together = files.__getitems__([4, 0, 3, 0])
    assert together == [files[4], files[0], files[3], files[0]] and len(set(together)) == 3
    assert [source[i].id for i in (4, 0, 3)] == ["e", "a", "d"]
    for number in (-1, 5):
        with pytest.raises(IndexError, match=f"no record {number} among 5"):
            files[number]


def test_the_hundred_thousandth_shard_has_its_place(tmp_path):
    """In the order of names it would stand before the second."""
    for index in (100_000, 99_999):
        info = ShardInfo("train", index, SIZE, ids=("x",), trajectories=(1,), frames=(4,))
        shards.write_shard(tmp_path, info, [shards.serialize(make("x"))])
    assert [info.index for info in records.finished_shards(tmp_path)] == [99_999, 100_000]


def test_the_notes_of_a_split_are_its_shards_in_order(tmp_path):
    """The fingerprint is in the settings of runs that are to go on: it stays as it is."""
    videos = [make("a"), make("bb", n=7), make("c", frames=1)]
    shards.write_records(tmp_path, videos, shard_size=2)
    for split in ("test", "train-more"):
        shards.write_records(tmp_path, [make("other")], split=split)
    notes = records.SplitNotes.read(tmp_path, "train")
    made_from = '[[0, ["a", "bb"], "", ""], [1, ["c"], "", ""]]'
    assert notes.fingerprint == hashlib.sha256(made_from.encode()).hexdigest()[:16]
    assert (notes.size, notes.lengths.tolist(), dict(notes.first_with)) == (
        SIZE,
        [2, 1],
        {4: 0, 1: 2},
    )
    assert notes.trajectories.tolist() == [len(video.trajectories) for video in videos]
    shards.shard_info_path(tmp_path, "train", 1).unlink()
    with pytest.raises(RecordsError, match=r"describes 2 records of split 'train', .* hold 3"):
        records.open_records(tmp_path).counts  # noqa: B018


def test_captions_are_read_alone_and_in_order(tmp_path):
    shards.write_records(tmp_path, [FULL, make("plain")], shard_size=1)
    assert list(records.read_captions(tmp_path)) == [FULL.captions, ()]


def test_plain_tfds_reads_it(tmp_path):
    shards.write_records(tmp_path, [make("a"), FULL])
    builder = tfds.builder_from_directory(str(tmp_path))
    assert builder.info.splits["train"].num_examples == 2
    example = builder.as_data_source(split="train")[1]
    np.testing.assert_array_equal(example["labels"], FULL.trajectories.labels)
    assert example["id"] == b"full" and example["trajectories"] == 300
    same(records.decode(example), FULL)


def test_reading_needs_no_tensorflow(tmp_path):
    shards.write_records(tmp_path, [FULL])
    code = (
        "import sys; from tokenization import records;"
        f"print(records.open_records({str(tmp_path)!r})[0].id, 'tensorflow' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == ["full", "False"]


def test_squash_ignores_the_aspect(tmp_path):
    wide = make("a").trajectories.resize(20, 60)
    frames = np.zeros((4, 90, 160, 3), np.uint8)
    frames[:, :, 80:] = 255
    record = Record.squash(wide, frames, size=SIZE, captions=("x",))
    assert record.frames.shape == (4, SIZE, SIZE, 3) and record.captions == ("x",)
    assert record.trajectories.labels.shape == (4, SIZE, SIZE)
    assert record.frames[0, 5, 10].tolist() == [0, 0, 0]
    assert record.frames[0, 5, 20].tolist() == [255, 255, 255]


def test_provenance_changes_with_what_made_the_record():
    other = dataclasses.replace(FULL.trajectories, made_by={"segmenter": "sam"})
    changed = dataclasses.replace(FULL, trajectories=other)
    assert records.provenance(FULL) == records.provenance(dataclasses.replace(FULL, label=None))
    assert records.provenance(FULL) != records.provenance(changed)


@pytest.mark.usefixtures("annotations_unchecked")
def test_frames_and_labels_must_agree():
    with pytest.raises(ValueError, match=r"record 'a': frames .* must have the same t, h and w"):
        Record(make("a").trajectories, np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="1 boxes, 2 times and 1 labels must agree"):
        Boxes(np.zeros((1, 4), np.float32), np.zeros(2, np.float32), ("a",))


def test_a_dataset_has_unique_ids(tmp_path):
    with pytest.raises(ValueError, match="two records have the id 'a'"):
        shards.write_records(tmp_path, [make("a"), make("a")])


@pytest.mark.parametrize("shard_size", [1, 2])
def test_records_of_a_dataset_have_one_size(tmp_path, shard_size):
    half = dataclasses.replace(
        make("b"),
        trajectories=make("b").trajectories.resize(SIZE // 2, SIZE // 2),
        frames=make("b").frames[:, ::2, ::2],
    )
    with pytest.raises(ValueError, match=r"record 'b' has frames of .* records of a dataset have"):
        shards.write_records(tmp_path, [make("a"), half], shard_size=shard_size)
    assert not (tmp_path / "dataset_info.json").exists()


def test_writing_again_leaves_no_old_shard(tmp_path):
    shards.write_records(tmp_path, [make(name) for name in "abc"], shard_size=1)
    shards.write_records(tmp_path, [make("d")], shard_size=1)
    assert [r.id for r in records.open_records(tmp_path)] == ["d"]
    assert len(list(tmp_path.glob("*array_record*"))) == 1


class FullDisk:
    """An ArrayRecord writer on a disk that fills up, failing as the real one does."""

    def __init__(self, path: str, options: str) -> None:
        self.file = open(path, "wb")  # noqa: PTH123, SIM115

    def write(self, data: bytes) -> None:
        self.file.write(data[:100])

    def close(self) -> None:
        self.file.close()
        raise RuntimeError("write() failed: No space left on device; writing x; at byte 100")


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    from array_record.python import array_record_module

    shards.write_records(tmp_path, [make("a")])
    before = sorted(p.name for p in tmp_path.rglob("*"))
    info = ShardInfo("train", 1, SIZE, ids=("b",), trajectories=(5,), frames=(4,))
    data = [shards.serialize(make("b"))]
    with monkeypatch.context() as patch:
        patch.setattr(array_record_module, "ArrayRecordWriter", FullDisk)
        with pytest.raises(OSError, match=r"No space left on device.*free disk space and run"):
            shards.write_shard(tmp_path, info, data)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert [r.id for r in records.open_records(tmp_path)] == ["a"]
    shards.write_shard(tmp_path, info, data)
    shards.write_metadata(tmp_path)
    assert [r.id for r in records.open_records(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("victim", ["array_record", "json", "info"])
def test_a_crash_at_any_rename_is_seen_by_no_reader(tmp_path, monkeypatch, victim):
    """Renaming fails for the shard, for its JSON file, or for the metadata."""
    from pathlib import Path

    replace = Path.replace

    def fail(self, target):
        if {"array_record": "array_record-", "json": "train-0", "info": "dataset_info"}[
            victim
        ] in Path(target).name:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        shards.write_records(tmp_path, [make("a")])
    assert not list(tmp_path.rglob("*.partial"))
    with pytest.raises(RecordsError, match=r"has no dataset_info\.json"):
        records.open_records(tmp_path)


def test_the_metadata_that_readers_look_for_come_last(tmp_path, monkeypatch):
    """So that whoever sees them sees all the rest."""
    from pathlib import Path

    replace, renamed = Path.replace, []

    def note(self, target):
        renamed.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    shards.write_records(tmp_path, [make("a")])
    assert renamed[-4:] == ["quarantine.jsonl", "stats.md", "features.json", "dataset_info.json"]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_killed_run_of_the_same_process_number_is_no_obstacle(tmp_path):
    (tmp_path / f".metadata.{os.getpid()}.partial").mkdir()
    shards.write_records(tmp_path, [make("a")])
    assert len(records.open_records(tmp_path)) == 1


def test_a_shard_must_be_as_described(tmp_path):
    with pytest.raises(ValueError, match="0 records, not as described"):
        shards.write_shard(tmp_path, ShardInfo("train", 0, SIZE, ids=("a",)), [])
    with pytest.raises(ValueError, match=r"make it with Record\.squash"):
        shards.serialize(Record(make("a").trajectories.resize(4, 8), np.zeros((4, 4, 8, 3), "u1")))


def test_a_shard_without_records_is_no_gap(tmp_path):
    """All videos of a shard may be in quarantine."""
    lost = Quarantined("x", "x.mp4", "is empty", "copy it again")
    shards.write_shard(tmp_path, ShardInfo("train", 0, SIZE, quarantine=(lost,)), [])
    info = ShardInfo("train", 1, SIZE, ids=("b",), trajectories=(5,), frames=(4,))
    shards.write_shard(tmp_path, info, [shards.serialize(make("b"))])
    shards.write_metadata(tmp_path)
    assert [r.id for r in records.open_records(tmp_path)] == ["b"]
    line = json.loads((tmp_path / "quarantine.jsonl").read_text())
    assert line == {**dataclasses.asdict(lost), "split": "train"}


def test_stats_page_counts(tmp_path):
    shards.write_records(tmp_path, [make("a", n=3), make("bb", n=9)])
    page = (tmp_path / "stats.md").read_text()
    assert "| train | 2 | 8 | 6.0 | 0 |" in page
    assert "    3 to     3 | " + "#" * 40 + " 1" in page


def test_errors_name_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(RecordsError, match=r"nowhere does not exist; write records with"):
        records.open_records(tmp_path / "nowhere")
    with pytest.raises(RecordsError, match=r"python -m tokenization\.extract"):
        records.open_records(tmp_path)
    shards.write_records(tmp_path, [make("a")])
    with pytest.raises(RecordsError, match="has no split 'test'; it has: train"):
        records.open_records(tmp_path, "test")
    os.unlink(shards.shard_path(tmp_path, "train", 0))  # noqa: PTH108
    with pytest.raises(RecordsError, match=r"array_record-00000 is missing"):
        records.open_records(tmp_path)


@pytest.mark.skipif(folder_lock.fcntl is None, reason="this system has no locks")
def test_a_split_that_is_being_written_is_told_apart_from_one_that_was_cut_off(tmp_path):
    shards.write_records(tmp_path, [make("a")])
    shard_files.unfinished_path(tmp_path, "train").touch()
    with pytest.raises(RecordsError, match="is not finished; run the same command again"):
        records.open_records(tmp_path)
    with folder_lock.only_writer(tmp_path):
        told = rf"being written by another process on host .*, pid {os.getpid()}, .*; wait for it"
        with pytest.raises(RecordsError, match=told):
            records.open_records(tmp_path)
    assert folder_lock.writer_of(tmp_path) is None


def test_shard_info_round_trip():
    info = ShardInfo("train", 3, 256, "s", "i", 7, ("a",), (1,), (2,), (3,), 1, ("a",), 0.5)
    info = dataclasses.replace(info, quarantine=(Quarantined("x", "p", "r", "m"),))
    assert ShardInfo.from_json(info.to_json()) == info

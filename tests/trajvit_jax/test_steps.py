"""Training steps: what is read depends on the seed and the step, and on nothing else."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import os
import pickle
import threading
import time

import numpy as np
import pytest

from tokenization.records import Record, ShardInfo
from tokenization.shards import write_records
from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.data import streams as data_streams
from trajvit_jax.data.in_place import InPlace
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.samples import video_sample
from trajvit_jax.data.schedule import SourceSettings, StreamSettings
from trajvit_jax.data.steps import ReadingSettings, stack_samples, train_steps
from trajvit_jax.data.streams import StepPlans, Stream, fingerprint, open_streams
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.inputs import check_video
from trajvit_jax.models.settings import ResamplerSettings

SIZE = 32
PACKING = PackingSettings(group=4, rows=2, slots=14)


def tiles(name: str, count: int, frames: int, size: int = SIZE) -> Record:
    """A record of `count` vertical stripes with two captions."""
    stripes = np.linspace(1, count + 1, size, endpoint=False).astype(np.uint16)
    labels = np.tile(stripes, (frames, size, 1))
    trajectories = Trajectories(
        labels,
        np.arange(frames, dtype=np.float32),
        np.arange(frames) == 0,
        VideoInfo(name, size, size, 1.0, float(frames)),
    )
    pixels = np.random.default_rng(len(name) + count).integers(
        0, 256, (frames, size, size, 3), dtype=np.uint8
    )
    return Record(trajectories, pixels, (f"video {name}", f"{name} again"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of videos and one of images, with 1 to 9 trajectories each."""
    root = tmp_path_factory.mktemp("steps")
    for folder, records, frames in (("a", 22, 4), ("b", 13, 4), ("images", 20, 1)):
        write_records(
            root / folder, [tiles(f"{folder}{i:02}", i % 9 + 1, frames) for i in range(records)]
        )
    return root


@pytest.fixture(scope="module")
def streams(folders):
    """Videos of two sources, packed, and images, in turn."""
    a, b, images = (str(folders / name) for name in ("a", "b", "images"))
    videos = (SourceSettings(a, weight=3.0), SourceSettings(b, weight=1.0))
    return open_streams(
        [
            StreamSettings("video", 4, 8, videos, weight=2, packing=PACKING),
            StreamSettings("image", 1, 16, (SourceSettings(images),), packing=PACKING),
        ]
    )


@pytest.fixture(scope="module")
def text():
    return WordPiece.train(["video again a b images 0123456789"], 8)


@pytest.fixture
def read(streams, tiny, text):
    def some(count, streams=streams, *, model=None, threads=2, workers=0, cache=0, **arguments):
        steps = train_steps(
            streams,
            model or tiny(),
            text,
            reading=ReadingSettings(threads, workers, cache),
            **{"seed": 0} | arguments,
        )
        loaded = list(itertools.islice(steps, count))
        steps.close()
        return loaded

    return some


def arrays(loaded):
    rows = vars(loaded.batch)["rows"]
    own = {name: value for name, value in vars(loaded.batch).items() if name != "rows"}
    return own | ({} if rows is None else vars(rows))


def assert_same(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert (one.stream, one.ids) == (other.stream, other.ids)
        one, other = arrays(one), arrays(other)
        assert one.keys() == other.keys()
        for name, array in one.items():
            assert array.dtype == other[name].dtype
            np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.fixture
def unbroken(read):
    return read(9)


def test_a_start_reads_every_note_on_a_shard_once(folders, monkeypatch):
    """There may be a hundred thousand, on a network folder."""
    read, from_json = [], ShardInfo.from_json

    def note(text):
        info = from_json(text)
        read.append((info.ids[0], info.index))
        return info

    monkeypatch.setattr(ShardInfo, "from_json", note)
    [stream] = streams = open_streams(
        [StreamSettings("video", 4, 8, tuple(SourceSettings(str(folders / name)) for name in "ab"))]
    )
    fingerprint(streams)
    stream.check()
    assert stream.size == (SIZE, SIZE)
    assert [count.dtype for count in stream.counts] == [np.uint16] * 2
    assert len(read) == len(set(read)) == 2


def test_streams_take_turns_with_shapes_of_their_own(unbroken):
    assert [one.stream for one in unbroken].count("image") == 3
    for one in unbroken:
        b, t = (16, 1) if one.stream == "image" else (8, 4)
        assert one.batch.video.shape == (b, t, SIZE, SIZE, 3)
        assert one.batch.labels.shape == (b, t, SIZE // 4, SIZE // 4)
        assert one.batch.rows.video.shape == (b // 4, 2, 14)
        assert len(set(one.ids)) == b
        if one.stream == "video":
            assert sum(name.startswith("b") for name in one.ids) == 2


@pytest.mark.parametrize("start", [1, 5])
def test_reading_goes_on_where_an_unbroken_run_would(read, unbroken, start):
    assert_same(read(9 - start, start=start), unbroken[start:])


def test_threads_and_memory_change_nothing(read, unbroken):
    assert_same(read(9, threads=4), unbroken)
    assert_same(read(9, threads=1, cache=5), unbroken)


def test_batches_of_workers_are_put_together_in_place():
    samples = [
        {"id": name, "bad": None, "video": np.full((2, 3), i, np.uint8), "epoch": np.int32(i)}
        for i, name in enumerate("abcd")
    ]
    in_place = InPlace(2)
    for own in (samples[:2], samples[2:]):
        found, plain = in_place.take([in_place.put(one) for one in own]), stack_samples(own)
        assert found.keys() == plain.keys()
        assert (found["id"], found["bad"]) == (plain["id"], plain["bad"])
        for name in ("video", "epoch"):
            assert found[name].dtype == plain[name].dtype
            np.testing.assert_array_equal(found[name], plain[name])
    filled = in_place.put(samples[0])
    with pytest.raises(ValueError, match=r"video of record 'b' is uint8\[3\], of others"):
        in_place.put(samples[1] | {"video": np.zeros(3, np.uint8)})
    with pytest.raises(ValueError, match=r"a batch of 2 samples cannot be made of \[1\]"):
        in_place.take([filled])


def test_threads_are_the_cores_of_the_host_where_none_are_named(read, unbroken, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)), raising=False)
    assert ReadingSettings(threads=0).threads_here() == 7
    assert ReadingSettings(threads=0, workers=3).threads_here() == 3  # of each
    assert ReadingSettings(threads=2, workers=3).threads_here() == 2
    monkeypatch.setenv("TRAJVIT_PROCESSES_PER_HOST", "2")
    assert ReadingSettings(threads=0).threads_here() == 3
    assert ReadingSettings(threads=2).threads_here() == 2
    assert_same(read(9, threads=0), unbroken)


@pytest.mark.slow
def test_workers_change_nothing(read, unbroken):
    assert_same(read(4, start=5, workers=2, threads=1), unbroken[5:])


def test_processes_share_every_batch(read, unbroken):
    halves = [read(9, process=process, processes=2) for process in range(2)]
    for whole, *parts in zip(unbroken, *halves, strict=True):
        assert whole.ids == sum((part.ids for part in parts), ())
        together = [arrays(part) for part in parts]
        for name, array in arrays(whole).items():
            np.testing.assert_array_equal(array, np.concatenate([one[name] for one in together]))


def test_another_seed_is_another_order(read, unbroken):
    other = read(9, seed=1)
    assert [one.stream for one in other] == [one.stream for one in unbroken]
    assert all(one.ids != same.ids for one, same in zip(other, unbroken, strict=True))


def test_captions_depend_on_the_epoch_and_the_record_alone(read, streams):
    """The same records in batches of another size and mix draw the same captions."""

    def drawn(batch, weight):
        own = streams[0].settings
        sources = tuple(dataclasses.replace(one, weight=weight(one)) for one in own.sources)
        changed = dataclasses.replace(own, batch=batch, sources=sources, packing=None)
        steps = read(120 // batch, [Stream(changed, streams[0].sources)])
        return {
            (name, epoch): tuple(caption)
            for one in steps
            for name, epoch, caption in zip(
                one.ids,
                one.batch.epoch.tolist(),
                one.batch.caption_hash.tolist(),
                strict=True,
            )
        }

    some, others = drawn(8, lambda one: one.weight), drawn(12, lambda _: 1.0)
    both = some.keys() & others.keys()
    assert len(both) > 60
    assert all(some[key] == others[key] for key in both)
    first = {name: caption for (name, epoch), caption in some.items() if epoch == 0}
    assert any(some[name, 1] != first[name] for name in first if (name, 1) in some)


@pytest.mark.parametrize("queries", [1, 2])
def test_labels_name_the_slots_of_their_video(read, streams, tiny, queries):
    """Every video covers what it would in a row of its own, but for what was dropped."""
    own = dataclasses.replace(
        tiny().trajvit, max_trajectories=8, resampler=ResamplerSettings(queries=queries)
    )
    model = tiny(trajvit=own)
    records = {record.id: record for source in streams[0].sources for record in source}
    dropped = 0
    for one in read(4, streams[:1], model=model):
        batch = one.batch
        check_video(batch.video, batch.labels, model, batch.rows)
        for i, name in enumerate(one.ids):
            group, number = divmod(i, PACKING.group)
            row = batch.rows.row[group, number]
            used = np.unique(batch.labels[i][batch.labels[i] > 0])
            np.testing.assert_array_equal(batch.rows.video[group, row, used], number + 1)
            np.testing.assert_array_equal(batch.rows.query[group, row, used], 1)
            alone = video_sample(records[name], model)
            np.testing.assert_array_equal(batch.video[i], alone.video)
            count = np.unique(alone.labels[alone.labels > 0]).size + alone.dropped
            assert used.size + batch.dropped[i] == count
            if batch.dropped[i] == 0:
                np.testing.assert_array_equal(batch.labels[i] > 0, alone.labels > 0)
        dropped += batch.dropped.sum()
    assert (dropped > 0) == (queries == 2)


def test_a_step_that_crops_gets_what_is_stored(read, streams):
    records = {record.id: record for source in streams[0].sources for record in source}
    for one in read(2, streams[:1], resize=False):
        assert one.batch.labels.dtype == np.uint16
        for i, name in enumerate(one.ids):
            np.testing.assert_array_equal(one.batch.video[i], records[name].frames)
            stored = records[name].trajectories.labels
            pairs = np.unique([stored.ravel(), one.batch.labels[i].ravel()], axis=1)
            assert pairs.shape[1] == len(records[name].trajectories)  # one slot each, all kept
            assert (pairs[1] > 0).sum() == pairs.shape[1] - one.batch.dropped[i]


def test_models_without_trajectories_have_rows_of_their_own(read, tiny):
    for one in read(3, model=tiny("vit3d")):
        assert one.batch.rows is None


def test_the_plan_is_made_from_the_index_alone(streams, tiny, monkeypatch):
    def refuse(example):
        raise AssertionError("a record was opened")

    monkeypatch.setattr("tokenization.record_source.decode", refuse)
    far = StepPlans(streams[0], 0, tiny(), 0)(10**12)
    assert far.rows.video.shape == (2, 2, 14) and far.reads.epoch.min() > 10**9


def test_threads_that_want_one_plan_make_it_once(streams, tiny, monkeypatch):
    plans, made, together = StepPlans(streams[0], 0, tiny(), 0), [], threading.Barrier(8)
    plan = data_streams.plan

    def counted(*arguments, **options):
        made.append(1)
        time.sleep(0.05)  # long enough for the others to come
        return plan(*arguments, **options)

    def ask(_):
        together.wait()
        return plans(3)

    monkeypatch.setattr(data_streams, "plan", counted)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(8)))
    assert len(made) == 1 and all(one is found[0] for one in found)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(plans))(3).most, found[0].most)


def test_fingerprints_tell_sources_apart(streams):
    assert fingerprint(streams) != fingerprint(streams[:1])
    (alone,) = streams[1].sources
    assert fingerprint(streams[1:]) == alone.fingerprint


def test_what_processes_cannot_share_is_refused(read):
    with pytest.raises(ValueError, match=r"'video'.*8 videos.*4 processes times groups of 4"):
        read(1, processes=4)
    with pytest.raises(ValueError, match="process 2 of 2"):
        read(1, process=2, processes=2)


def test_records_that_do_not_fit_are_refused_before_reading(read, tiny):
    def stream(*sources, frames=4):
        names = tuple(SourceSettings(f"folder{i}") for i in range(len(sources)))
        return [Stream(StreamSettings("video", frames, 4, names), sources)]

    small, large = ([tiles(f"x{i}", 2, 4, size) for i in range(4)] for size in (16, 32))
    with pytest.raises(ValueError, match=r"folder0: 16x16, folder1: 32x32"):
        read(1, stream(small, large))
    with pytest.raises(ValueError, match=r"'x0' has 4 frames, the model reads 1"):
        read(1, stream(small, frames=1))
    with pytest.raises(ValueError, match=r"folder0 holds 3 records, fewer than one batch of 4"):
        stream(small[:3])
    with pytest.raises(ValueError, match=r"of folder0, folder1: source 1 has 0.01 of a batch"):
        stream(small * 100, small[:1])


def test_settings_of_one_source_are_one_stream():
    data = DataSettings(train="records", batch=32, packing=PACKING)
    (stream,) = data.train_streams(8)
    assert (stream.frames, stream.batch, stream.packing) == (8, 32, PACKING)
    assert data.train_sources == (SourceSettings("records"),)
    assert data.evaluation_folder == "records"


def test_settings_that_contradict_each_other_are_refused():
    one = StreamSettings(sources=(SourceSettings("a"),))
    with pytest.raises(ValueError, match="both say what to train on"):
        DataSettings(train="records", streams=(one,))
    with pytest.raises(ValueError, match="names of their own"):
        DataSettings(streams=(one, one))
    with pytest.raises(ValueError, match="workers must be >= 0"):
        DataSettings(workers=-1)
    with pytest.raises(ValueError, match="threads must be >= 0"):
        DataSettings(threads=-1)
    assert DataSettings(streams=(one,)).evaluation_folder == "a"

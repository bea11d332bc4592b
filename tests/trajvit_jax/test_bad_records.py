"""Records that cannot be used: they keep their place, count for nothing, and are named."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.trajvit_jax.plain_loss import contrastive_loss
from tokenization.shards import write_records
from trajvit_jax import train as training
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.evaluation import eval_videos
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.schedule import SourceSettings, StreamSettings
from trajvit_jax.data.steps import ReadingSettings, train_steps
from trajvit_jax.data.streams import Stream, open_streams
from trajvit_jax.data.unusable import BadRecord, UnusableRecord, read_record
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import retrieval
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.losses import blockwise_contrastive_loss
from trajvit_jax.micro_batches import embed_in_parts
from trajvit_jax.models.settings import (
    EncoderSettings,
    ResNetSettings,
    TextSettings,
    TrajViTSettings,
)
from trajvit_jax.models.tokens import Rows
from trajvit_jax.run.bad_records import BadRecords, read_bad_records

# Checking the annotation of a sequence opens one of its records, by chance a damaged one.
pytestmark = pytest.mark.usefixtures("annotations_unchecked")

RECORDS, SHARD = 24, 12


def damage(folder, number):
    """Flips a bit of a record, which ArrayRecord guards with a checksum."""
    shard = sorted(folder.glob("*.array_record-*"))[number // SHARD]
    data = bytearray(shard.read_bytes())
    name = f"clip{number:02d}".encode()
    data[data.index(name)] ^= 16
    shard.write_bytes(data)
    return shard


@pytest.fixture(scope="module")
def whole(tmp_path_factory, toy_record):
    folder = tmp_path_factory.mktemp("whole") / "records"
    write_records(folder, [toy_record(i) for i in range(RECORDS)], shard_size=SHARD)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "records")


@pytest.fixture(scope="module")
def text():
    return WordPiece.train(["a light dark red green blue square on the left right"], 12)


@pytest.fixture
def read(tiny, text):
    """Six steps of a folder or a list of records."""

    def some(records, *, workers=0, resize=True):
        own = StreamSettings("video", 4, 4, (SourceSettings(str(records)),))
        streams = (
            open_streams([own]) if not isinstance(records, list) else [Stream(own, (records,))]
        )
        reading = ReadingSettings(threads=2, workers=workers)
        steps = train_steps(streams, tiny(), text, seed=0, resize=resize, reading=reading)
        loaded = list(itertools.islice(steps, 6))
        steps.close()
        return loaded

    return some


def sample_of(loaded, i):
    arrays = vars(loaded.batch).items()
    return {name: np.asarray(value)[i] for name, value in arrays if name != "rows"}


def assert_absent(loaded, expected, number):
    """One record of an epoch is absent, and nothing else is another."""
    name, found = f"clip{number:02d}", []
    for one, other in zip(loaded, expected, strict=True):
        assert one.ids == other.ids
        for i, own in enumerate(one.ids):
            some, others = sample_of(one, i), sample_of(other, i)
            assert others.pop("present") and some.pop("present") == (own != name)
            if own != name:
                jax.tree.map(np.testing.assert_array_equal, some, others)
                continue
            found += one.bad
            for key in ("sample", "epoch"):
                np.testing.assert_array_equal(some[key], others[key])
            assert not some["video"].any() and not some["labels"].any()
            for key in some:
                assert some[key].shape == others[key].shape and some[key].dtype == others[key].dtype
    (bad,) = found
    assert bad.id == name
    return bad


@pytest.mark.parametrize("resize", [True, False])
def test_a_damaged_record_is_absent_from_its_place(read, whole, folder, resize):
    shard = damage(folder, 17)
    bad = assert_absent(read(folder, resize=resize), read(whole, resize=resize), 17)
    assert bad.file == str(shard) and "data hash mismatch" in bad.reason


@pytest.mark.slow
def test_a_worker_tells_of_it_too(read, whole, folder):
    damage(folder, 3)
    assert_absent(read(folder, workers=1), read(whole), 3)


@pytest.mark.parametrize("captions", [(), ("  ",)])
def test_a_record_without_a_caption_is_absent_from_its_place(read, toy_record, captions):
    records = [toy_record(i) for i in range(RECORDS)]
    lacking = [*records[:5], toy_record(5, captions=captions), *records[6:]]
    bad = assert_absent(read(lacking), read(records), 5)
    assert "'clip05' has no caption" in bad.reason


def test_empty_captions_beside_others_are_never_drawn(read, toy_record):
    records = [toy_record(i) for i in range(RECORDS)]
    mixed = [dataclasses.replace(one, captions=("", *one.captions, " ")) for one in records]
    for one, other in zip(read(mixed), read(records), strict=True):
        np.testing.assert_array_equal(one.batch.text, other.batch.text)


def test_a_storage_that_fails_is_no_bad_record(read, folder):
    class Failing(list):
        def __getitem__(self, number):
            raise RuntimeError("pread() failed: Input/output error; reading /data/shard-00001")

    with pytest.raises(OSError, match="Input/output error"):
        read_record(Failing([0]), 0)
    streams = open_streams([StreamSettings("video", 4, 4, (SourceSettings(str(folder)),))])
    shutil.rmtree(folder)
    with pytest.raises(OSError, match="No such file"):
        read_record(streams[0].sources[0], 0)


def test_a_record_of_another_length_is_refused_at_the_start_by_file(read, toy_record, tmp_path):
    records = [toy_record(i, frames=3 if i == 13 else 4) for i in range(RECORDS)]
    write_records(tmp_path / "odd", records, shard_size=SHARD)
    reason = r"array_record-00001: record 'clip13' has 3 frames, the model reads 4; .*frames=3"
    with pytest.raises(ValueError, match=reason):
        read(tmp_path / "odd")


def test_an_image_among_videos_is_not_to_be_extracted_again(read, toy_record, tmp_path):
    """It would have one frame again."""
    records = [toy_record(i, frames=1 if i == 13 else 4) for i in range(RECORDS)]
    write_records(tmp_path / "odd", records, shard_size=SHARD)
    with pytest.raises(ValueError, match=r"'clip13' has 1 frame, .* an image .* --overwrite from"):
        read(tmp_path / "odd")


# The loss


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 12, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    # Some captions are equal, also those of an absent and a present sample.
    return jnp.asarray(x[0]), jnp.asarray(x[1]), jnp.asarray([[i % 5, 7] for i in range(12)])


@pytest.mark.parametrize(
    ("absent", "block"), [((3, 4, 11), None), ((0,), 5), ((3, 4, 11), 5), (tuple(range(11)), 5)]
)
def test_the_loss_is_that_of_the_batch_without_the_absent(embeddings, absent, block):
    video, text, ids = embeddings
    kept = np.setdiff1d(np.arange(12), absent)

    def loss(video, text, temperature, ids, present=None):
        if block is None:
            return contrastive_loss(video, text, temperature, ids, present)
        return blockwise_contrastive_loss(video, text, temperature, ids, present, block=block)

    graded = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    temperature = jnp.float32(0.07)
    present = jnp.asarray(np.isin(np.arange(12), kept))
    (value, measures), gradients = graded(video, text, temperature, ids, present)
    (expected, told), others = graded(video[kept], text[kept], temperature, ids[kept])
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(measures["accuracy"], told["accuracy"], rtol=1e-6)
    for one, other in zip(gradients[:2], others[:2], strict=True):
        np.testing.assert_allclose(one[kept], other, rtol=1e-6, atol=1e-6)
        assert not np.asarray(one)[list(absent)].any()
    np.testing.assert_allclose(gradients[2], others[2], rtol=1e-6, atol=2e-5)  # tens, cancelling


def test_a_batch_of_absent_samples_alone_has_no_loss_and_no_gradient(embeddings):
    video, text, ids = embeddings
    none = jnp.zeros(12, bool)

    def loss(video):
        return blockwise_contrastive_loss(video, text, jnp.float32(0.07), ids, none)[0]

    value, gradient = jax.value_and_grad(loss)(video)
    assert value == 0 and not np.asarray(gradient).any()


def batch_of(count, absent):
    """Random videos, two to a row of 14 slots; the absent ones as the loader hands them over."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (count, 4, 8, 8)).astype(np.int32)
    labels[1::2] = np.where(labels[1::2] > 0, labels[1::2] + 7, 0)
    slots, query = np.zeros((2, count // 2, 1, 14), np.int32)
    slots[..., :5], slots[..., 7:12] = 1, 2
    query[..., 1:5] = query[..., 8:12] = 1
    video = rng.integers(0, 256, (count, 4, 32, 32, 3), dtype=np.uint8)
    ids = rng.integers(1, 60, (count, 12)).astype(np.int32)
    captions = rng.integers(0, 6, (count, 2)).astype(np.uint32)
    for x in (video, labels, ids, captions):
        x[list(absent)] = 0
    return Batch(
        video=video,
        labels=labels,
        text=ids,
        text_mask=np.ones((count, 12), bool),
        caption_hash=captions,
        dropped=np.zeros(count, np.int32),
        sample=np.zeros((count, 2), np.uint32),
        epoch=np.zeros(count, np.int32),
        rows=Rows(slots, query, np.zeros((count // 2, 2), np.int32)),
        present=~np.isin(np.arange(count), absent),
    )


def without(batch, absent):
    """The batch less whole groups."""
    kept = np.setdiff1d(np.arange(len(batch.video)), absent)
    rows = jax.tree.map(lambda x: x[kept[::2] // 2], batch.rows)
    return jax.tree.map(lambda x: x[kept], batch.replace(rows=None)).replace(rows=rows)


def test_gradients_and_statistics_are_those_of_the_batch_without_the_absent(tiny, random_model):
    """In two parts, against the whole batch without them."""
    absent = (2, 3, 8, 9)
    batch = batch_of(12, absent)

    @nnx.jit(static_argnums=2)
    def graded(model, batch, parts):
        def loss(model):
            video, text = embed_in_parts(model, batch, parts)
            temperature, ids = model.temperature[...], batch.caption_hash
            return blockwise_contrastive_loss(video, text, temperature, ids, batch.present)[0]

        value, gradients = nnx.value_and_grad(loss)(model)
        return value, gradients, nnx.state(model, nnx.BatchStat)

    widths = {"width": 16, "depth": 1, "heads": 1, "mlp": 16}
    sizes = {"vocabulary": 64, "length": 12, "positions": 12}
    one_stage = TrajViTSettings(max_trajectories=6, resnet=ResNetSettings(4, (8,), (1,)))
    small = tiny(
        trajvit=one_stage, encoder=EncoderSettings(**widths), text=TextSettings(**sizes, **widths)
    )
    model = random_model(small)
    value, gradients, statistics = graded(model, batch, 2)
    expected, others, moved = graded(model, without(batch, absent).replace(present=None), 1)
    np.testing.assert_allclose(value, expected, rtol=1e-6)

    def compare(path, one, other):
        # The temperature's is a sum of large terms that cancel.
        close = 1e-5 if "temperature" in jax.tree_util.keystr(path) else 1e-6
        bound = close * max(1.0, np.abs(other).max())
        assert np.abs(one - other).max() <= bound, jax.tree_util.keystr(path)

    jax.tree_util.tree_map_with_path(compare, statistics, moved)
    jax.tree_util.tree_map_with_path(compare, gradients, others)


# The run


@pytest.fixture
def settings(tiny):
    """Six steps over a folder: two epochs."""

    def make(records, held_out, **changes):
        data = DataSettings(
            train=str(records),
            evaluation=str(held_out),
            eval_split="train",
            batch=8,
            eval_batch=8,
            threads=2,
            **changes,
        )
        return ExperimentSettings(model=tiny("vit3d"), data=data, steps=6, log_every=1)

    return make


def logged(workdir, name):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_a_run_goes_on_without_a_damaged_record_and_names_it_once(
    settings, whole, folder, tmp_path
):
    shard = damage(folder, 4)
    results = training.train(settings(folder, folder), tmp_path / "run")
    assert results["videos"] == RECORDS - 1 and results["bad_records"] == 1
    counts = logged(tmp_path / "run", "bad_records")
    assert counts == sorted(counts) and counts[-1] == 2  # one an epoch
    assert logged(tmp_path / "run", "compilations") == [1] * 6  # the program of all batches
    (line,) = (tmp_path / "run" / "bad_records.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["id"] == "clip04" and told["file"] == str(shard) and told["step"] <= 3


def test_too_many_in_a_batch_end_a_run_by_name(settings, whole, folder, tmp_path):
    for number in range(6):
        damage(folder, number)
    reason = r"of the 8 records of step \d cannot be used; .*bad_records\.jsonl says which"
    with pytest.raises(ValueError, match=reason):
        training.train(settings(folder, whole), tmp_path / "run")
    assert read_bad_records(tmp_path / "run" / "bad_records.jsonl")


def test_too_many_of_a_run_end_it(tmp_path):
    bad = BadRecords(tmp_path, share=0.01)
    bad.check(7, absent=1, batch=4, bad=10, read=40)  # ten are never too many
    bad.check(7, absent=25, batch=256, bad=40, read=4000)
    with pytest.raises(ValueError, match=r"26 of the 256 records of step 7"):
        bad.check(7, absent=26, batch=256, bad=26, read=4000)
    with pytest.raises(ValueError, match=r"41 of the 4000 .* data\.max_bad = 0\.01"):
        bad.check(7, absent=0, batch=256, bad=41, read=4000)
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        DataSettings(max_bad=1.5)


def test_each_is_named_once_also_after_a_restart_and_a_cut_off_line(tmp_path):
    one, two, three = (BadRecord(name, "shard", "why") for name in "abc")
    BadRecords(tmp_path, share=0.1).note(3, [one, two, one])
    path = tmp_path / "bad_records.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "id"')
    again = BadRecords(tmp_path, share=0.1)
    again.note(5, [two, three])
    again.note(6, [three])
    assert read_bad_records(path) == [one, two, three]
    BadRecords(tmp_path, share=0.1, process=2).note(1, [one])
    assert read_bad_records(tmp_path / "bad_records-2.jsonl") == [one]


# The evaluation


def test_an_evaluation_leaves_bad_records_out_and_says_so(
    folder, whole, tiny, random_model, text, caplog
):
    damage(folder, 7)
    (own,) = open_streams([StreamSettings("video", 4, 4, (SourceSettings(str(folder)),))])
    groups = list(eval_videos(own.sources[0], tiny("vit3d"), 5))
    assert [len(group.video) for group in groups] == [5] * 5  # no place is given away
    assert [one.id for group in groups for one in group.bad if one] == ["clip07"]
    results = dict(retrieval.evaluate(random_model(tiny("vit3d")), own.sources[0], text, batch=8))
    assert results["videos"] == 23 and results["bad_records"] == 1
    assert "1 of 24 records cannot be evaluated" in caplog.text and "'clip07'" in caplog.text


def test_too_many_end_an_evaluation_as_soon_as_that_is_certain(
    tiny, random_model, toy_record, text
):
    silent = [dataclasses.replace(toy_record(number), captions=()) for number in range(24)]
    with pytest.raises(ValueError, match="at least 4 of 24 records cannot be evaluated"):
        dict(retrieval.evaluate(random_model(tiny("vit3d")), silent, text, batch=4))


def test_a_vocabulary_is_learned_past_damaged_records(settings, folder, tmp_path):
    damage(folder, 4)
    assert len(training.vocabulary_of(settings(folder, folder), tmp_path)) > 10


def test_what_decoders_raise_is_told_in_a_line():
    class Broken(list):
        def __getitem__(self, number):
            raise AttributeError("'NoneType' object\nhas no attribute 'astype'")

    with pytest.raises(UnusableRecord, match=r"AttributeError: 'NoneType' object has no"):
        read_record(Broken([0]), 0)

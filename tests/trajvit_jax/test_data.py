"""Records -> text tokens, slots and batches."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.data.captions import released_caption
from trajvit_jax.data.evaluation import eval_videos
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.samples import caption_hash, in_slots, video_sample
from trajvit_jax.data.wordpiece import SPECIAL, WordPiece

CAPTIONS = ["a red square on the left", "a green square, moving right", "nothing"]


@pytest.fixture(scope="module")
def text():
    return WordPiece.train(CAPTIONS, 12)


@pytest.fixture(scope="module")
def records(toy_record):
    return [toy_record(i) for i in range(10)]


def test_wordpiece_frames_pads_and_cuts(text):
    ids = {piece: i for i, piece in enumerate(text.vocabulary)}
    tokens = text(["a red", "a red square " * 9, ""])
    assert tokens.ids.shape == tokens.mask.shape == (3, 12)
    start, end = ids["[CLS]"], ids["[SEP]"]
    np.testing.assert_array_equal(tokens.ids[0, :4], [start, ids["a"], ids["red"], end])
    np.testing.assert_array_equal(tokens.ids[0, 4:], ids["[PAD]"])
    assert tokens.mask.sum(1).tolist() == [4, 12, 2]
    assert tokens.ids[1, 0] == start and tokens.ids[1, -1] == end
    assert text([]).ids.shape == (0, 12)


def test_captions_are_cleaned_as_the_released_program_does(golden):
    g = golden("optim_text")
    found = [(released_caption(one), released_caption(one, 3)) for one in g["pre_text/in"].tolist()]
    expected = zip(g["pre_text/out"], g["pre_text/out_max3"], strict=True)
    assert found == [(whole, cut) for whole, cut in expected]


def test_wordpiece_cleans_captions_where_it_is_asked_to(tmp_path):
    plain = WordPiece.train(["a man's dog, fast - a mans dog fast"], 12)
    plain.save(tmp_path / "vocab.txt")
    cleaned = WordPiece.load(tmp_path / "vocab.txt", 12, "released")
    np.testing.assert_array_equal(
        cleaned(["A man's dog, fast!"]).ids, plain(["a mans dog fast"]).ids
    )
    assert plain(["A man's dog, fast"]).mask.sum() > cleaned(["A man's dog, fast"]).mask.sum()
    learned = WordPiece.train(["A man's dog, fast!"], 12, cleaning="released")
    assert learned.vocabulary == WordPiece.train(["a mans dog fast"], 12).vocabulary
    np.testing.assert_array_equal(learned(["a man's dog"]).ids, learned(["a mans dog"]).ids)
    with pytest.raises(ValueError, match=r"text\.cleaning .* did you mean 'released'"):
        WordPiece.load(tmp_path / "vocab.txt", 12, "release")


def test_wordpiece_ignores_case_and_knows_its_limits(text):
    np.testing.assert_array_equal(text(["A RED Square"]).ids, text(["a red square"]).ids)
    unknown = text(["\u732b"]).ids[0]
    assert unknown[1] == text.vocabulary.index("[UNK]")


def test_training_a_vocabulary_is_repeatable():
    captions = [f"{a}{b} {b}{a}c" for a in "abcdefgh" for b in "qrstuvwx"]
    first = WordPiece.train(captions, 8, size=70)
    assert len(first) <= 70
    assert first.vocabulary[: len(SPECIAL)] == SPECIAL
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(captions).tolist()
        assert WordPiece.train(order, 8, size=70).vocabulary == first.vocabulary


def test_vocabulary_survives_its_file(text, tmp_path):
    text.save(tmp_path / "vocab.txt")
    loaded = WordPiece.load(tmp_path / "vocab.txt", 12)
    assert loaded.vocabulary == text.vocabulary
    np.testing.assert_array_equal(loaded(CAPTIONS).ids, text(CAPTIONS).ids)
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]


def test_pieces_with_unicode_separators_keep_their_line(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, "a\u2028b", "c"]) + "\n", encoding="utf-8")
    assert len(WordPiece.load(path, 4)) == len(SPECIAL) + 2


@pytest.mark.parametrize("content", [b"a\nb\n[CLS]\n", b"\xff\xfe\x00"])
def test_what_is_no_vocabulary_is_refused_by_name(tmp_path, content):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"words\.txt"):
        WordPiece.load(path, 4)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 7), min_size=12, max_size=12),
    st.integers(0, 8),
    st.integers(0, 50),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([np.int32, np.uint16]),
)
def test_the_largest_trajectories_keep_their_order_and_cells(cells, most, start, each, dtype):
    trajectories = Trajectories.from_labels(
        np.array(cells, np.uint16).reshape(2, 3, 2),
        frame_times=np.arange(2, dtype=np.float32),
        key_frames=np.array([True, False]),
        video=VideoInfo("clip", 2, 3, 1.0, 2.0),
    )
    labels = trajectories.labels
    slots, dropped = in_slots(trajectories, most, start=start, each=each, dtype=dtype)
    areas = collections.Counter(labels[labels > 0].tolist())
    kept = sorted(sorted(areas, key=lambda i: (-areas[i], i))[:most])
    assert dropped == len(areas) - len(kept) and slots.dtype == dtype
    expected = np.zeros_like(slots)
    for number, label in enumerate(kept):
        expected[labels == label] = start + 1 + each * number
    np.testing.assert_array_equal(slots, expected)


def test_samples_have_the_size_of_the_model(toy_record, tiny):
    sample = video_sample(toy_record(0), tiny(image_size=16))
    assert sample.video.shape == (4, 16, 16, 3) and sample.labels.shape == (4, 4, 4)
    assert set(np.unique(sample.labels)) == {1, 2} and sample.dropped == 0


def test_a_record_of_another_length_is_refused_by_name(toy_record, tiny):
    with pytest.raises(ValueError, match=r"'clip03' has 3 frames.*reads 4"):
        video_sample(toy_record(3, frames=3), tiny())


def test_equal_captions_share_a_hash():
    np.testing.assert_array_equal(caption_hash("A dog "), caption_hash("a dog"))
    assert (caption_hash("a dog") != caption_hash("a cat")).any()


@pytest.fixture
def read(tiny, text, train_batches):
    """The first batches of some records."""

    def read(records, count, *, start=0, threads=2, batch=4, seed=0, cache=0):
        data = DataSettings(batch=batch, threads=threads, cache=cache)
        batches = train_batches(records, tiny(), text, data, seed=seed, start=start)
        return list(itertools.islice(batches, count))

    return read


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_reading_goes_on_where_an_unbroken_run_would(read, records):
    unbroken = read(records, 8)
    resumed = read(records, 3, start=5)
    assert all(map(same, unbroken[5:], resumed))
    assert not same(unbroken[4], resumed[0])


def test_the_number_of_threads_changes_nothing(read, records):
    one, four = (read(records, 6, threads=n) for n in (1, 4))
    assert all(map(same, one, four))


@pytest.mark.parametrize("cache", [3, 100])
def test_keeping_videos_in_memory_changes_nothing(read, records, cache):
    plain, kept = (read(records, 8, cache=n) for n in (0, cache))
    assert all(map(same, plain, kept))


def test_every_epoch_is_another_order_of_all_records(read, records):
    batches = read(records, 4, batch=5)
    hashes = [tuple(row) for batch in batches for row in batch.caption_hash.tolist()]
    epochs = hashes[:10], hashes[10:]
    expected = {tuple(caption_hash(record.captions[0]).tolist()) for record in records}
    assert set(epochs[0]) == set(epochs[1]) == expected and len(expected) == 10
    assert epochs[0] != epochs[1]
    other = read(records, 2, batch=5, seed=1)
    assert [tuple(row) for batch in other for row in batch.caption_hash.tolist()] != epochs[0]


def test_every_caption_of_a_record_is_drawn(read, toy_record):
    records = [toy_record(0, captions=("one", "two"))]
    batches = read(records, 16, batch=1)
    assert len({tuple(batch.caption_hash[0].tolist()) for batch in batches}) == 2


def test_fewer_records_than_a_batch_are_refused(read, records):
    with pytest.raises(ValueError, match=r"10 records.*batch of 11"):
        read(records, 1, batch=11)


@pytest.mark.parametrize("batch", [4, 5, 16])
def test_evaluation_reads_every_video_once(records, tiny, batch):
    groups = list(eval_videos(records, tiny(), batch))
    assert sum(group.count for group in groups) == len(records)
    assert {len(group.video) for group in groups} == {batch}
    captions = [captions for group in groups for captions in group.kept]
    assert captions == [record.captions for record in records]
    videos = np.concatenate([group.video[: group.count] for group in groups])
    expected = [video_sample(record, tiny()).video for record in records]
    np.testing.assert_array_equal(videos, expected)

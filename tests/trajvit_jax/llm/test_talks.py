"""Conversations among records: plans, rows, what is left out and told."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.llm.conversation import Conversation, ConversationError, Turn
from trajvit_jax.llm.eyes import Eyes, EyesSettings
from trajvit_jax.llm.names import record_id
from trajvit_jax.llm.packing import RowSettings, plan_rows
from trajvit_jax.llm.sequences import TEXT, ContextOverflow
from trajvit_jax.llm.talk_source import Reader, TalkSource, plan_talks
from trajvit_jax.llm.talks import talk_steps

ROWS = RowSettings(group=4, rows=2, length=160)


def talk(number, *, answer="red", video=True):
    """About clip `number` of the toy."""
    text = "<image>\nWhat is it?" if video else "What is it?"
    turns = (Turn("user", text), Turn("assistant", f"{answer} {number}"))
    return Conversation(f"talk{number}", turns, (f"clip{number:02d}.mp4",) if video else ())


@pytest.fixture(scope="module")
def records(toy_record):
    return [toy_record(i) for i in range(12)]


@pytest.fixture
def reader(tiny, chat):
    return Reader(tiny(), EyesSettings(), chat, ROWS)


@pytest.fixture
def source(records, reader):
    return TalkSource([talk(i) for i in range(12)], records, reader)


def plan_each(fixed, counts, rows, *, each=1):
    """Of conversations about one video each."""
    plan = plan_rows(fixed, counts[:, None], rows, each=each)
    return SimpleNamespace(
        order=plan.order, row=plan.row, kept=plan.kept[:, 0], dropped=plan.dropped[:, 0]
    )


class TestPlan:
    def test_everything_fits_where_there_is_room(self):
        fixed, counts = np.array([10, 30, 20, 40] * 2), np.array([5, 1, 9, 3] * 2)
        plan = plan_each(fixed, counts, RowSettings(4, 2, 60))
        assert sorted(plan.order) == list(range(8))
        np.testing.assert_array_equal(plan.kept, counts[plan.order])
        assert not plan.dropped.any()
        used = np.bincount(plan.row, (fixed + counts)[plan.order], minlength=4)
        assert used.max() <= 60
        # Both groups carry about as much, and own two rows each.
        assert sorted(set(plan.row[:4])) == [0, 1] and sorted(set(plan.row[4:])) == [2, 3]

    def test_the_largest_video_gives_up_trajectories_first(self):
        fixed, counts = np.array([5, 5]), np.array([40, 8])
        plan = plan_each(fixed, counts, RowSettings(2, 1, 40), each=1)
        assert dict(zip(plan.order.tolist(), plan.kept.tolist(), strict=True)) == {0: 22, 1: 8}
        assert plan.dropped.sum() == 18
        # Of two tokens each, half as many fit.
        plan = plan_each(fixed, counts, RowSettings(2, 1, 40), each=2)
        assert sorted(plan.kept.tolist()) == [7, 8]

    def test_a_row_is_filled_to_its_last_place(self):
        plan = plan_each(np.array([10, 10]), np.array([5, 5]), RowSettings(2, 1, 29))
        assert plan.kept.tolist() == [5, 4] and plan.dropped.sum() == 1

    def test_a_text_that_finds_no_room_is_left_out(self):
        plan = plan_each(np.array([30, 25]), np.array([2, 2]), RowSettings(2, 1, 40))
        assert plan.row[plan.order.tolist().index(1)] == -1
        assert plan.kept[plan.order.tolist().index(1)] == 0

    def test_random_plans_keep_to_their_rows(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            rows = RowSettings(int(rng.integers(1, 6)), int(rng.integers(1, 4)), 50)
            b = rows.group * int(rng.integers(1, 4))
            each = int(rng.integers(1, 3))
            fixed, counts = rng.integers(1, 50, b), rng.integers(0, 60, b)
            plan = plan_each(fixed, counts, rows, each=each)
            there = plan.row >= 0
            sizes = (fixed[plan.order] + plan.kept * each)[there]
            used = np.bincount(plan.row[there], sizes, minlength=1)
            assert used.max() <= 50
            group = np.arange(b) // rows.group
            assert (plan.row[there] // rows.rows == group[there]).all()
            np.testing.assert_array_equal(plan.kept + plan.dropped, counts[plan.order])

    def test_several_videos_have_places_of_their_own(self):
        """The first beside its conversation, others where one has none, then beyond the group."""
        videos, counts = (
            np.array([1, 3, 0, 2]),
            np.array([[5, 0, 0], [2, 3, 4], [0] * 3, [1, 1, 0]]),
        )
        plan = plan_rows(np.full(4, 9), counts, RowSettings(4, 4, 20, media=6), videos=videos)
        assert plan.order.tolist() == [0, 1, 2, 3]
        assert plan.place.tolist() == [[0, -1, -1], [1, 4, 5], [-1] * 3, [3, 2, -1]]
        np.testing.assert_array_equal(plan.kept, counts)
        # A row of eleven: of nine trajectories two remain, of the largest videos.
        plan = plan_rows(np.full(4, 9), counts, RowSettings(4, 4, 11, media=6), videos=videos)
        assert plan.kept.tolist() == [[2, 0, 0], [1, 1, 0], [0] * 3, [1, 1, 0]]

    def test_videos_without_places_leave_their_conversation_out(self):
        videos, counts = np.array([2, 1, 3, 1]), np.ones((4, 3), int)
        counts *= np.arange(3) < videos[:, None]
        plan = plan_rows(np.full(4, 9), counts, RowSettings(4, 4, 20, media=5), videos=videos)
        assert plan.row[2] == -1 and (plan.row[[0, 1, 3]] >= 0).all()
        assert plan.place.tolist() == [[0, 4, -1], [1, -1, -1], [-1] * 3, [3, -1, -1]]
        assert not plan.kept[2].any() and plan.dropped[2].sum() == 3

    def test_groups_share_those_with_several_videos(self):
        """Two of three videos each do not fit one group, and are spread over both."""
        rng = np.random.default_rng(0)
        videos = np.array([3, 1, 1, 1, 1, 3])
        counts = rng.integers(1, 9, (6, 3)) * (np.arange(3) < videos[:, None])
        plan = plan_rows(np.full(6, 5), counts, RowSettings(3, 2, 99, media=5), videos=videos)
        assert (plan.row >= 0).all()
        assert {0, 5} & set(plan.order[:3]) and {0, 5} & set(plan.order[3:])
        for group in (slice(0, 3), slice(3, 6)):
            places = plan.place[group][plan.place[group] >= 0]
            assert len(set(places)) == len(places) == 5
        np.testing.assert_array_equal(plan.kept, counts[plan.order])

    def test_groups_divide_a_batch(self):
        with pytest.raises(ValueError, match="3 conversations is not a multiple of groups of 2"):
            plan_each(np.ones(3, int), np.ones(3, int), RowSettings(2, 1, 9))


def spelled(chat, batch, row, segment):
    """Text of one conversation in a row."""
    own = (batch.sequences.segment[row] == segment) & (batch.sequences.source[row] == TEXT)
    return chat.decode(batch.sequences.ids[row, own].tolist())


def test_steps_read_every_conversation_once_an_epoch(source, chat):
    steps = talk_steps(source, 4, seed=1, threads=2)
    loaded = [next(steps) for _ in range(6)]
    steps.close()
    ids = [name for one in loaded for name in one.ids]
    assert sorted(ids[:12]) == sorted(ids[12:]) == sorted(f"talk{i}" for i in range(12))
    assert ids[:12] != ids[12:]
    for one in loaded:
        batch = one.batch
        assert batch.present.all() and not one.bad
        assert batch.sequences.ids.shape == (2, 160)
        found = [
            spelled(chat, batch, row, segment)
            for row in range(2)
            for segment in range(1, batch.sequences.segment[row].max() + 1)
        ]
        expected = [f"assistant\n\nred {name.removeprefix('talk')}" for name in one.ids]
        assert sorted(text[text.index("assistant") :] for text in found) == sorted(expected)


def test_video_tokens_are_those_of_the_own_video(source, toy_record):
    """Each conversation looks up the slots of its video, in which that video's labels are."""
    loaded = next(talk_steps(source, 8, seed=0))
    batch, slots = loaded.batch, source.reader.slots
    for group in range(2):
        rows = slice(2 * group, 2 * group + 2)
        source_of = batch.sequences.source[rows]
        seen = {int(n) // slots for n in source_of[source_of >= 0]}
        assert seen == set(range(4))
        for place, name in enumerate(loaded.ids[4 * group : 4 * group + 4]):
            record = toy_record(int(name.removeprefix("talk")))
            own = np.unique(source_of[(source_of >= 0) & (source_of // slots == place)]) % slots
            assert own.tolist() == list(range(1 + len(record.trajectories)))
            assert batch.labels[4 * group + place].max() == len(record.trajectories)
            np.testing.assert_array_equal(batch.video[4 * group + place], record.frames)


def test_a_step_depends_on_its_number_alone(source):
    steps = talk_steps(source, 4, seed=3)
    unbroken = [next(steps) for _ in range(5)]
    again = next(talk_steps(source, 4, seed=3, start=4, threads=1))
    assert again.ids == unbroken[4].ids
    for one, other in zip(*map(leaves, (again, unbroken[4])), strict=True):
        np.testing.assert_array_equal(one, other)


def test_videos_in_memory_are_read_once(records, reader):
    """And what is read is the same, whether they are all there, or some, or none."""

    class Counting(list):
        read = 0

        def __getitem__(self, number):
            self.read += 1
            return super().__getitem__(number)

    counts, read = [], []
    for cache in (0, 5, 12):
        own = Counting(records)
        source = TalkSource([talk(i) for i in range(12)], own, reader)
        own.read = 0
        steps = talk_steps(source, 4, seed=2, cache=cache, threads=1)
        read.append([next(steps) for _ in range(9)])
        steps.close()
        counts.append(own.read)
    for some in read[1:]:
        for one, other in zip(read[0], some, strict=True):
            assert one.ids == other.ids
            for a, b in zip(*map(leaves, (one, other)), strict=True):
                np.testing.assert_array_equal(a, b)
    # Three epochs and what is read ahead.
    assert counts[0] >= 36 > counts[1] and counts[2] == 12


def leaves(loaded):
    sequences = loaded.batch.sequences
    return [loaded.batch.video, loaded.batch.labels, *vars(sequences).values()]


def test_processes_read_their_parts(source):
    whole = next(talk_steps(source, 8, seed=5))
    parts = [next(talk_steps(source, 8, seed=5, process=i, processes=2)) for i in range(2)]
    assert whole.ids == parts[0].ids + parts[1].ids
    for name in ("ids", "source", "segment", "target"):
        halves = [getattr(part.batch.sequences, name) for part in parts]
        np.testing.assert_array_equal(np.concatenate(halves), getattr(whole.batch.sequences, name))


def test_rows_of_the_encoder_are_those_of_its_group(records, reader, tiny):
    """Packed videos: the slots that are looked up hold that conversation's video."""
    packing = PackingSettings(group=4, rows=2, slots=8)
    packed = dataclasses.replace(reader, packing=packing)
    source = TalkSource([talk(i) for i in range(12)], records, packed)
    loaded = next(talk_steps(source, 8, seed=0))
    rows, sequences = loaded.batch.rows, loaded.batch.sequences
    for group in range(2):
        flat = rows.video[group].reshape(-1)
        for row in range(2 * group, 2 * group + 2):
            for segment in range(1, sequences.segment[row].max() + 1):
                own = sequences.source[row, sequences.segment[row] == segment]
                assert len(set(flat[own[own >= 0]])) == 1
        own = sequences.source[2 * group : 2 * group + 2]
        assert len(set(flat[own[own >= 0]])) == 4


def test_evaluation_reads_each_once_and_then_nothing(source):
    steps = talk_steps(source, 8, seed=0, ordered=True)
    first, last = next(steps), next(steps)
    assert sorted(first.ids) == sorted(f"talk{i}" for i in range(8))
    assert sorted(last.ids) == ["", "", "", "", "talk10", "talk11", "talk8", "talk9"]
    assert last.batch.present.all() and not last.batch.unplaced.any()
    talks = [int(row.max()) for row in last.batch.sequences.segment]
    assert sum(talks) == 4


def test_records_that_cannot_be_read_are_absent(reader, toy_record):
    bad = [toy_record(i, frames=3 if i == 3 else 4) for i in range(4)]
    source = TalkSource([talk(i) for i in range(4)], bad, reader)
    loaded = next(talk_steps(source, 4, seed=0))
    place = loaded.ids.index("talk3")
    assert loaded.batch.present.tolist() == [i != place for i in range(4)]
    assert not loaded.batch.unplaced.any()
    assert [bad.id for bad in loaded.bad] == ["clip03"]
    assert not loaded.batch.video[place].any()
    assert loaded.batch.sequences.segment.max() <= 3


def test_conversations_without_video_read_nothing_of_it(records, reader):
    source = TalkSource([talk(i, video=i % 2 == 0) for i in range(4)], records, reader)
    loaded = next(talk_steps(source, 4, seed=0))
    for place, name in enumerate(loaded.ids):
        has_video = int(name.removeprefix("talk")) % 2 == 0
        assert loaded.batch.labels[place].any() == has_video
    assert loaded.batch.present.all()


def about(*numbers):
    """A conversation about several clips of the toy, each with its placeholder."""
    text = " ".join("<video>" for _ in numbers) + " ?"
    turns = (Turn("user", text), Turn("assistant", f"red {numbers[0]}"))
    return Conversation(f"about{numbers[0]}", turns, tuple(f"clip{i:02d}.mp4" for i in numbers))


class TestSeveralVideos:
    @pytest.fixture
    def several(self, records, reader):
        """Of a group of four conversations six videos, of those of one conversation three."""
        reader = dataclasses.replace(reader, rows=RowSettings(4, 2, 200, media=6))
        talks = [talk(0), about(1, 2, 3), talk(4, video=False), about(5, 6)]
        return TalkSource(talks, records, reader)

    def test_tokens_are_those_of_each_video(self, several, toy_record):
        """In the order in which the conversation names them."""
        loaded = next(talk_steps(several, 4, seed=0))
        batch, slots = loaded.batch, several.reader.slots
        assert len(batch.video) == len(batch.labels) == 6 and batch.present.all()
        assert not batch.unplaced.any() and not batch.dropped.any()
        expected = {"talk0": [0], "about1": [1, 2, 3], "talk4": [], "about5": [5, 6]}
        sequences, found = batch.sequences, []
        for row in range(2):
            for segment in range(1, sequences.segment[row].max() + 1):
                own = sequences.source[row, sequences.segment[row] == segment]
                places = list(dict.fromkeys((own[own >= 0] // slots).tolist()))
                read = [
                    next(i for i in range(12) if np.array_equal(toy_record(i).frames, video))
                    for video in batch.video[places]
                ]
                for place in places:
                    numbers = own[own // slots == place] % slots
                    assert numbers.tolist() == list(range(1 + batch.labels[place].max()))
                found.append(read)
        assert sorted(found) == sorted(expected[name] for name in loaded.ids)

    def test_the_order_of_videos_matters(self, records, reader):
        rows = RowSettings(1, 1, 200, media=2)
        sources = [
            TalkSource([about(*own)], records, dataclasses.replace(reader, rows=rows))
            for own in ((1, 2), (2, 1))
        ]
        one, other = (next(talk_steps(source, 1, seed=0)).batch for source in sources)
        np.testing.assert_array_equal(one.video, other.video[::-1])

    def test_a_damaged_video_takes_its_conversation_along(self, several, records, toy_record):
        broken = [toy_record(i, frames=3 if i == 3 else 4) for i in range(12)]
        source = TalkSource(several.talks, broken, several.reader)
        loaded = next(talk_steps(source, 4, seed=0))
        place = loaded.ids.index("about1")
        assert loaded.batch.present.tolist() == [i != place for i in range(4)]
        assert [bad.id for bad in loaded.bad] == ["clip03"]
        assert sum(int(row.max()) for row in loaded.batch.sequences.segment) == 3
        assert sum(video.any() for video in loaded.batch.video) == 3

    def test_one_without_a_record_is_missing(self, several, records):
        with pytest.raises(ConversationError, match=r"(?s)1 of 2 .*: clip77;"):
            TalkSource([talk(0), about(1, 77)], records, several.reader, max_missing=0.4)

    def test_processes_read_their_parts(self, several, records):
        own = [talk(0), about(1, 2), about(5, 6), talk(8)] * 2
        talks = [dataclasses.replace(one, id=f"{i}") for i, one in enumerate(own)]
        source = TalkSource(talks, records, several.reader)
        whole = next(talk_steps(source, 8, seed=5))
        parts = [next(talk_steps(source, 8, seed=5, process=i, processes=2)) for i in range(2)]
        for read in (lambda x: x.video, lambda x: x.labels, lambda x: x.sequences.source):
            halves = [read(part.batch) for part in parts]
            np.testing.assert_array_equal(np.concatenate(halves), read(whole.batch))


@pytest.mark.parametrize("packed", [False, True])
def test_trajectories_beyond_the_model_s_slots_are_counted(records, tiny, chat, packed):
    few = tiny(trajvit=dataclasses.replace(tiny().trajvit, max_trajectories=1))
    packing = PackingSettings(group=4, rows=2, slots=16) if packed else None
    reader = Reader(few, EyesSettings(), chat, ROWS, packing)
    source = TalkSource([talk(i, video=i > 0) for i in range(4)], records, reader)
    plan = plan_talks(source, np.arange(4))
    has_video = plan.number > 0
    np.testing.assert_array_equal(plan.kept[:, 0], has_video)
    np.testing.assert_array_equal(plan.dropped, has_video)  # each clip has two


@pytest.mark.parametrize("name", ["trajvit", "vit3d"])
def test_an_image_among_videos_is_read(records, reader, tiny, toy_record, name):
    """TrajViT has the tokens of one frame, as an image has that is asked about later."""
    model = tiny(name)
    image = toy_record(3, frames=1)
    reader = dataclasses.replace(reader, video=model)
    source = TalkSource([talk(i) for i in range(4)], [*records[:3], image], reader)
    loaded = next(talk_steps(source, 4, seed=0))
    place = loaded.ids.index("talk3")
    assert loaded.batch.present.all() and not loaded.bad
    video, labels = (jnp.asarray(x[place]) for x in (loaded.batch.video, loaded.batch.labels))
    assert (video == video[:1]).all() and video.any()
    if name == "trajvit":
        assert labels[0].any() and not labels[1:].any()
        eyes = Eyes(model, EyesSettings(), rngs=nnx.Rngs(0))
        see = nnx.jit(lambda eyes, *clip: eyes(*clip, groups=1))
        padded = see(eyes, video[None], labels[None])
        alone = see(eyes, video[None, :1], labels[None, :1])
        np.testing.assert_array_equal(padded.valid, alone.valid)
        there = np.asarray(alone.valid)
        np.testing.assert_allclose(
            np.asarray(padded.states)[there], np.asarray(alone.states)[there], atol=2e-5
        )


class TestSomeMayBeLeftOut:
    def test_faulty_ones(self, records, reader, caplog):
        two = Conversation(
            "two", (Turn("user", "<video> <video>?"), Turn("assistant", "Yes.")), ("a", "b")
        )
        mute = Conversation("mute", (Turn("user", "?"),))
        talks = [*(talk(i) for i in range(8)), two, mute]
        with caplog.at_level(logging.WARNING):
            source = TalkSource(talks, records, reader, source="a.json", max_bad=0.2)
        assert len(source) == 8 and "'two' has 2 videos, of which" in caplog.text
        assert "'mute' has no answer" in caplog.text
        with pytest.raises(ConversationError, match=r"'two' has 2 videos.*'mute' has no answer"):
            TalkSource(talks, records, reader, max_bad=0.1)

    def test_long_ones(self, records, reader, caplog):
        talks = [talk(i, answer="red " * (200 if i in (3, 5) else 1)) for i in range(10)]
        with caplog.at_level(logging.WARNING):
            source = TalkSource(talks, records, reader, max_bad=0.2)
        assert [one.id for one in source.talks] == [
            f"talk{i}" for i in range(10) if i not in (3, 5)
        ]
        assert len(source.record) == len(source.fixed) == len(source.trajectories) == 8
        assert "2 of 10 conversations are longer" in caplog.text
        next(talk_steps(source, 8, seed=0))
        with pytest.raises(ContextOverflow, match="2 of 10 conversations are longer"):
            TalkSource(talks, records, reader, max_bad=0.1)


class TestWhatDoesNotFit:
    def test_videos_without_record(self, records, reader, caplog):
        with caplog.at_level(logging.WARNING):
            source = TalkSource([talk(0), talk(77)], records, reader, source="a.json")
        assert len(source) == 1
        assert "a.json: 1 of 2 conversations are left out" in caplog.text
        assert "clip77" in caplog.text
        told = r"(?s)1 of 2 conversations have no record .*clip77; extract them, or raise max_miss"
        with pytest.raises(ConversationError, match=told):
            TalkSource([talk(0), talk(77)], records, reader, max_missing=0.4)
        with pytest.raises(ConversationError, match="no conversation's video has a record"):
            TalkSource([talk(77)], records, reader)

    def test_several_videos(self, records, reader):
        turns = (Turn("user", "<video> <video>?"), Turn("assistant", "Yes."))
        two = Conversation("x", turns, ("clip00", "clip01"))
        told = "'x' has 2 videos, of which rows have places for 1: raise rows.media"
        with pytest.raises(ConversationError, match=told):
            TalkSource([two], records, reader)
        with pytest.raises(ValueError, match=r"rows\.media=3 is less than rows\.group=4"):
            RowSettings(group=4, media=3)
        packing = PackingSettings(group=4, rows=2, slots=16)
        rows = dataclasses.replace(ROWS, media=8)
        with pytest.raises(ValueError, match=r"rows\.media=8: .*leave out data\.packing"):
            dataclasses.replace(reader, rows=rows, packing=packing)

    def test_no_answer(self, records, reader):
        with pytest.raises(ConversationError, match="'x' has no answer"):
            TalkSource([Conversation("x", (Turn("user", "?"),))], records, reader)

    def test_a_conversation_longer_than_a_row(self, records, reader):
        long = talk(0, answer="red " * 200)
        with pytest.raises(ContextOverflow, match=r"'talk0' takes at least \d+ .*row holds 160"):
            TalkSource([long], records, reader)

    def test_batches(self, source):
        with pytest.raises(ValueError, match="12 conversations, 16 a step"):
            talk_steps(source, 16, seed=0)
        with pytest.raises(ValueError, match="multiple of 8"):
            talk_steps(source, 4, seed=0, processes=2)

    def test_groups(self, reader):
        with pytest.raises(ValueError, match=r"packing\.group=2 and rows\.group=4"):
            dataclasses.replace(reader, packing=PackingSettings(group=2, rows=1, slots=9))


def test_record_ids_are_paths_without_suffix():
    assert record_id("academic_source/Charades/X1.mp4") == "academic_source/Charades/X1"
    assert record_id("a.b.mkv") == "a.b"


def test_plan_counts_what_was_dropped(records, reader):
    small = dataclasses.replace(reader, rows=RowSettings(group=4, rows=1, length=160))
    source = TalkSource([talk(i) for i in range(4)], records, small)
    plan = plan_talks(source, np.arange(4))
    there = source.trajectories[plan.number, 0]
    np.testing.assert_array_equal(plan.kept[:, 0] + plan.dropped, there)


def test_what_finds_no_room_is_told_apart_from_damage(records, reader):
    """Left out of its step, present all the same; rows too small for the mean are refused."""
    talks = [talk(0, answer="red " * 8), *(talk(i) for i in range(1, 4))]
    fixed = TalkSource(talks, records, reader).fixed
    assert fixed[1] < fixed[0] < 3 * fixed[1]
    # Two rows for all of them together, where the long one leaves no room for a short one.
    rows = RowSettings(group=4, rows=2, length=-(-int(fixed.sum()) // 2))
    source = TalkSource(talks, records, dataclasses.replace(reader, rows=rows))
    loaded = next(talk_steps(source, 4, seed=0))
    assert loaded.batch.present.all() and not loaded.bad
    assert loaded.batch.unplaced.sum() == 1
    assert sum(int(row.max()) for row in loaded.batch.sequences.segment) == 3
    with pytest.raises(ContextOverflow, match=r"do not fit 1 rows of 100: raise rows\.rows"):
        small = RowSettings(group=4, rows=1, length=100)
        TalkSource([talk(i) for i in range(4)], records, dataclasses.replace(reader, rows=small))

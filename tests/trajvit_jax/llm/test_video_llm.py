"""Videos among words: what the language model reads of them, and what it must not."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.data.samples import video_sample
from trajvit_jax.llm.eyes import Eyes, EyesSettings, slots_of, token_numbers
from trajvit_jax.llm.model import VideoLLM, VideoLLMSettings
from trajvit_jax.llm.sequences import TEXT, ContextOverflow, Spread, rows_of, spread
from trajvit_jax.llm.tokenizer import MEDIA, Encoded
from trajvit_jax.models.settings import TrajViTSettings
from trajvit_jax.models.video_text import TOKENIZERS

WORDS = 11  # text tokens of a conversation here


def encoded(*places, seed=0):
    """Random words with videos before those of these numbers."""
    ids = np.random.default_rng(seed).integers(1, 96, WORDS).tolist()
    for place in sorted(places, reverse=True):
        ids.insert(place, MEDIA)
    return Encoded(np.asarray(ids, np.int32), np.zeros(len(ids), bool))


@pytest.fixture(scope="module")
def make(randomized, golden_settings):
    """A tiny VideoLLM around a video encoder's settings."""

    def build(video, **eyes):
        settings = VideoLLMSettings(video, EyesSettings(**eyes), golden_settings["llama"])
        return randomized(lambda: VideoLLM(settings, rngs=nnx.Rngs(0)))

    return build


@pytest.fixture(scope="module")
def clip(tiny, toy_record):
    """Pixels and labels of a clip; its two trajectories named anew, and slots for as many."""

    def sample(number, settings, names=(1, 2)):
        own = video_sample(toy_record(number), settings)
        table = np.array([0, *names], np.int32)
        return own.video, table[own.labels]

    return sample


@nnx.jit
def logits_of(model, sequences, video, labels, groups):
    seen = model.eyes(video, labels, groups=len(groups))
    return model.llm.logits(model(sequences, seen))


def ask(model, rows, video, labels, length=32, **options):
    sequences = rows_of(rows, length, **options)
    groups = jnp.zeros(len(video))
    found = logits_of(model, sequences, jnp.asarray(video), jnp.asarray(labels), groups)
    return np.asarray(found), sequences


def read(model, number, trajectories=2, *, seed=0, place=4):
    """A conversation about one video."""
    video = model.settings.video
    slots = slots_of(video)
    numbers = token_numbers(video, model.settings.eyes, trajectories, slots)
    return spread(encoded(place, seed=seed), [numbers])


@pytest.mark.parametrize("cls", [True, False])
def test_padded_trajectories_change_no_logit(make, tiny, clip, assert_golden, cls):
    """Slots that hold nothing, in the encoder and in the rows, are as if they were not there."""
    few, many = (
        tiny("trajvit", trajvit=dataclasses.replace(tiny().trajvit, max_trajectories=n))
        for n in (2, 6)
    )
    small, large = make(few, cls=cls), make(many, cls=cls)
    video, labels = clip(0, few)
    exact = read(small, 0)
    expected, sequences = ask(small, [[exact]], video[None], labels[None])
    place = np.flatnonzero(sequences.segment[0])
    # More slots, places planned for all of them, of which only two hold a trajectory.
    wide = read(large, 0, trajectories=6)
    found, wide_rows = ask(large, [[wide]], video[None], labels[None])
    text = np.flatnonzero(wide_rows.source[0] == TEXT)[:WORDS]
    plain = np.flatnonzero(sequences.source[0] == TEXT)[:WORDS]
    assert_golden(found[0, text], expected[0, plain], "planned for more")
    # The same trajectories in other slots, with empty ones between.
    gapped = clip(0, many, names=(2, 5))[1]
    found, _ = ask(large, [[wide]], video[None], gapped[None])
    assert_golden(found[0, text], expected[0, plain], "in other slots")
    # Another length of the row, and padding on its other side.
    found, _ = ask(small, [[exact]], video[None], labels[None], length=40, pad_left=True)
    assert_golden(found[0, -len(exact) :], expected[0, place], "padded on the left")


def test_answers_depend_on_the_video(make, tiny, clip):
    model = make(tiny("trajvit"))
    one, other = clip(0, tiny()), clip(1, tiny())
    first, rows = ask(model, [[read(model, 0)]], one[0][None], one[1][None])
    second, _ = ask(model, [[read(model, 0)]], other[0][None], other[1][None])
    before = np.flatnonzero(rows.source[0] >= 0)[0]
    np.testing.assert_array_equal(first[0, :before], second[0, :before])
    assert np.abs(first[0, before:] - second[0, before:]).max() > 1e-3


def test_several_conversations_a_row_and_videos_a_conversation(make, tiny, clip, assert_golden):
    """A packed row of a group of two videos gives what its conversations give alone."""
    settings = tiny("trajvit")
    model, slots = make(settings), slots_of(settings)
    videos, labels = (
        np.stack(part) for part in zip(*(clip(i, settings) for i in range(2)), strict=True)
    )
    numbers = [
        token_numbers(settings, model.settings.eyes, 2, slots, start=i * slots) for i in range(2)
    ]
    both = spread(encoded(2, 7, seed=1), [numbers[1], numbers[0]])
    one = spread(encoded(0, seed=2), [numbers[0]])

    def run(rows, length):
        sequences = rows_of(rows, length)
        found = logits_of(model, sequences, jnp.asarray(videos), jnp.asarray(labels), jnp.zeros(1))
        return np.asarray(found), sequences

    packed, sequences = run([[both, one]], 40)
    for number, own in enumerate((both, one), 1):
        alone, _ = run([[own]], 40)
        place = sequences.segment[0] == number
        assert_golden(packed[0, place], alone[0, : len(own)], f"conversation {number}")
    # Which of the two comes first matters.
    turned = spread(encoded(2, 7, seed=1), numbers)
    assert np.abs(run([[turned]], 40)[0] - run([[both]], 40)[0]).max() > 1e-3


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - {"vit"}))
def test_every_model_of_the_token_contract(make, tiny, clip, name):
    """Each is read slot by slot, and its CLS can be left out."""
    changes = {"rlt": {"impl": "fast"}}.get(name, {})
    settings = tiny(name, **changes)
    if name == "automerge":
        settings = dataclasses.replace(
            settings, automerge=dataclasses.replace(settings.automerge, tokens=5)
        )
    video, labels = clip(3, settings)
    for cls in (True, False):
        model = make(settings, skip=0, cls=cls)
        seen = nnx.jit(lambda model, *clip: model.eyes(*clip, groups=1))(
            model, jnp.asarray(video[None]), jnp.asarray(labels[None])
        )
        assert seen.states.shape[:2] == (1, slots_of(settings))
        assert bool(seen.valid[0, 0]) is cls
        own = read(model, 3)
        found, _ = ask(model, [[own]], video[None], labels[None], length=64)
        assert np.isfinite(found).all()


def test_images_are_videos_of_one_frame(make, tiny, clip):
    settings = tiny("trajvit")
    model = make(settings)
    video, labels = clip(0, settings)
    found, _ = ask(model, [[read(model, 0)]], video[None, :1], labels[None, :1])
    assert np.isfinite(found).all()


def test_eyes_are_those_of_a_trained_model(tiny, random_model, clip, assert_golden):
    """All layers: its own states. One less: what the last layer read."""
    settings = tiny("trajvit")
    model = random_model(settings)
    video, labels = (jnp.asarray(part[None]) for part in clip(2, settings))
    states, tokens, named = nnx.jit(lambda m, *clip: m.encode_video(*clip, trace=True))(
        model, video, labels
    )
    whole = Eyes.of(model, EyesSettings(skip=0))(video, labels, groups=1)
    assert_golden(whole.states, states)
    np.testing.assert_array_equal(whole.valid, tokens.video > 0)
    less = Eyes.of(model, EyesSettings(skip=1))(video, labels, groups=1)
    # Before each layer, and after the last: the last but one is what the last layer read.
    valid = np.asarray(less.valid[0])
    assert_golden(np.asarray(less.states[0])[valid], np.asarray(named["states"][-2, 0])[valid])


@pytest.mark.parametrize("trained", [3, 12])
def test_eyes_have_the_slots_that_they_are_used_with(
    tiny, random_model, clip, assert_golden, trained
):
    """Whatever the encoder was trained with: else videos of a group would be read elsewhere."""
    of = {
        most: tiny("trajvit", trajvit=dataclasses.replace(tiny().trajvit, max_trajectories=most))
        for most in (trained, 6)
    }
    eyes = Eyes.of(random_model(of[trained]), EyesSettings(), of[6])
    clips = [clip(0, of[6]), clip(1, of[6], names=(5, 6))]
    video, labels = (jnp.stack([jnp.asarray(one[part]) for one in clips]) for part in (0, 1))
    seen = nnx.jit(lambda eyes, *clips: eyes(*clips, groups=1))(eyes, video, labels)
    slots = slots_of(of[6])
    assert seen.states.shape[1] == 2 * slots
    expected = Eyes.of(random_model(of[6]), EyesSettings())
    for number in range(2):
        alone = expected(video[number : number + 1], labels[number : number + 1], groups=1)
        own = slice(number * slots, (number + 1) * slots)
        np.testing.assert_array_equal(seen.valid[0, own], alone.valid[0])
        valid = np.asarray(alone.valid[0])
        assert valid.sum() == 3
        assert_golden(np.asarray(seen.states[0, own])[valid], np.asarray(alone.states[0])[valid])


def test_eyes_of_other_arrays_are_refused(tiny, random_model):
    own = tiny("trajvit")
    wider = dataclasses.replace(own, encoder=dataclasses.replace(own.encoder, mlp=48))
    with pytest.raises(ValueError, match="a trained trajvit has other arrays"):
        Eyes.of(random_model(own), EyesSettings(), wider)


class TestWhatDoesNotFit:
    def test_placeholders(self):
        with pytest.raises(ValueError, match="'a' has 2 placeholders for 1 videos"):
            spread(encoded(1, 2), [np.arange(3, dtype=np.int32)], name="'a'")

    def test_a_row(self):
        one = Spread(np.ones(9, np.int32), np.full(9, TEXT, np.int32), np.zeros(9, bool))
        with pytest.raises(ContextOverflow, match=r"row 1 takes 18 tokens .18 of text.*holds 16"):
            rows_of([[one], [one, one]], 16)

    def test_layers_to_leave_out(self, make, tiny):
        with pytest.raises(ValueError, match=r"within 0\.\.1 of 2 layers: 2"):
            make(tiny("trajvit"), skip=2)
        with pytest.raises(ValueError, match="layers of tome read different tokens"):
            make(tiny("tome"), skip=1)

    def test_layers_of_an_encoder_that_runs_twice(self, make, tiny):
        own = tiny("trajvit")
        twice = dataclasses.replace(own, encoder=dataclasses.replace(own.encoder, passes=2))
        with pytest.raises(ValueError, match=r"eyes.skip=1: .* 2 passes .* set eyes.skip=0"):
            make(twice)

    def test_padding_that_is_attended_to(self, make, tiny):
        padded = dataclasses.replace(tiny().trajvit, attend_padding=True)
        with pytest.raises(ValueError, match="attend_padding=True: what the eyes see would"):
            make(tiny("trajvit", trajvit=padded))


def test_trajvit_settings_are_read(tiny):
    """Two tokens a trajectory are two places."""
    from trajvit_jax.models.settings import ResamplerSettings

    double = TrajViTSettings(resampler=ResamplerSettings(queries=2), max_trajectories=4)
    settings = tiny("trajvit", trajvit=double)
    assert slots_of(settings) == 9
    numbers = token_numbers(settings, EyesSettings(cls=False), 3, 9, start=9)
    assert numbers.tolist() == [10, 11, 12, 13, 14, 15]

"""Generation: transformers' own continuation, draws, stops, shapes that compile once."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.llm import generation
from trajvit_jax.llm.answering import AnswerSettings
from trajvit_jax.llm.eyes import EyesSettings
from trajvit_jax.llm.generation import Generator
from trajvit_jax.llm.model import VideoLLM, VideoLLMSettings
from trajvit_jax.llm.sampling import next_tokens
from trajvit_jax.llm.sequences import TEXT, ContextOverflow, Spread


def text(ids):
    ids = np.asarray(ids, np.int32)
    return Spread(ids, np.full_like(ids, TEXT), np.zeros(len(ids), bool))


@pytest.fixture(scope="module")
def model(randomized, tiny, golden_settings, golden_llama):
    """The golden language model with eyes that it does not use here."""
    settings = VideoLLMSettings(tiny("vit3d"), EyesSettings(), golden_settings["llama"])
    made = randomized(lambda: VideoLLM(settings, rngs=nnx.Rngs(0)))
    made.llm = golden_llama()
    return made


@pytest.fixture(scope="module")
def expected(golden):
    """A prompt of seven tokens and transformers' greedy continuation of twelve.

    There the prompt has an eighth token of id 0, which `generate` takes for padding: it is not
    seen, and has no position.
    """
    found = golden("hf_tiny")["llama/out/greedy"][0].tolist()
    assert found[:8].count(0) == 1
    return [one for one in found[:8] if one] + found[8:]


def test_greedy_continuation_is_that_of_transformers(model, expected):
    generator = Generator(model, stop=(), bucket=4)
    found = generator.generate([text(expected[:7])], None, AnswerSettings(most_tokens=12))
    assert found == [expected[7:]]


def test_rows_of_several_lengths_answer_as_alone(model, expected):
    """Padding, the batch's other rows, and spare slots change nothing."""
    prompts = [text(expected[:7]), text(expected[2:5]), text(expected[:13])]
    settings = AnswerSettings(most_tokens=7)
    together = Generator(model, stop=(), batch=4, bucket=16).generate(prompts, None, settings)
    alone = Generator(model, stop=(), bucket=1)
    assert together == [alone.generate([one], None, settings)[0] for one in prompts]
    assert together[0] == expected[7:14]


@pytest.mark.parametrize("piece", [1, 4, 5])
def test_long_prompts_are_read_in_pieces(model, expected, monkeypatch, piece):
    """Of any length, padding before the shorter ones included; the answers stay the same."""
    prompts, settings = [text(expected[:13]), text(expected[2:5])], AnswerSettings(most_tokens=5)
    whole = Generator(model, stop=(), batch=2, bucket=1).generate(prompts, None, settings)
    monkeypatch.setattr(generation, "_PIECE", piece)
    in_pieces = Generator(model, stop=(), batch=2, bucket=1).generate(prompts, None, settings)
    assert in_pieces == whole
    assert whole[0] == expected[13:18]


def test_stop_ids_end_an_answer(model, expected):
    stop = expected[11]
    assert stop not in expected[7:11]
    generator = Generator(model, stop=(stop,), batch=2, bucket=4)
    prompts = [text(expected[:7]), text(expected[:9])]
    found = generator.generate(prompts, None, AnswerSettings(most_tokens=12))
    assert found == [expected[7:11], expected[9:11]]
    streamed = list(generator.stream(prompts, None, AnswerSettings(most_tokens=12)))
    # It ends with the last row's stop, not with the most tokens.
    assert len(streamed) == 5


def test_programs_are_compiled_once_a_length(model, expected):
    generator = Generator(model, stop=(), batch=2, bucket=16)
    draw = AnswerSettings(most_tokens=9, temperature=0.7, top_p=0.9)
    for length in (3, 8, 13, 16):
        generator.generate([text(expected[:length])], None, AnswerSettings(most_tokens=5))
        generator.generate([text(expected[:length])] * 2, None, draw)
    assert generator.programs == (1, 1)
    generator.generate([text(expected[:17])], None, AnswerSettings(most_tokens=5))
    assert generator.programs == (2, 2)
    # Another prompt length in a cache of the same size: no step of its own.
    generator.generate([text(expected[:9])], None, AnswerSettings(most_tokens=40))
    assert generator.programs == (3, 2)


def test_draws_depend_on_the_seed_and_on_no_row(model, expected):
    draw = AnswerSettings(most_tokens=10, temperature=1.0)
    generator = Generator(model, stop=(), batch=3, bucket=16)
    prompt = text(expected[:8])
    one = generator.generate([prompt] * 3, None, draw, seeds=[5, 6, 5])
    assert one[0] == one[2] != one[1]
    again = generator.generate([prompt], None, draw, seeds=[6])
    assert again[0] == one[1]
    other = generator.generate([prompt], None, dataclasses.replace(draw, seed=1), seeds=[6])
    assert other[0] != one[1]


def test_temperature_and_top_p_draw_what_they_say():
    """20,000 draws against the probabilities, by hand."""
    probability = np.array([0.1, 0.5, 0.25, 0.15], np.float32)
    count = 20_000
    logits = jnp.broadcast_to(jnp.log(probability), (count, 4))
    keys = jax.random.split(jax.random.key(0), count)

    def shares(temperature, top_p):
        drawn = next_tokens(logits, keys, jnp.float32(temperature), jnp.float32(top_p))
        return np.bincount(drawn, minlength=4) / count

    np.testing.assert_array_equal(shares(0.0, 1.0), [0, 1, 0, 0])
    np.testing.assert_allclose(shares(1.0, 1.0), probability, atol=0.015)
    flat = probability**0.5 / (probability**0.5).sum()
    np.testing.assert_allclose(shares(2.0, 1.0), flat, atol=0.015)
    # Two tokens have 0.75 together, which is short of 0.8; the third is the next likely.
    three = np.array([0, 0.5, 0.25, 0.15]) / 0.9
    np.testing.assert_allclose(shares(1.0, 0.8), three, atol=0.015)
    np.testing.assert_array_equal(shares(1.0, 1e-6), [0, 1, 0, 0])


def test_what_does_not_fit(model, expected):
    model = nnx.clone(model)
    llm = dataclasses.replace(model.settings.llm, context=20)
    model.settings = dataclasses.replace(model.settings, llm=llm)
    generator = Generator(model, stop=(), bucket=4)
    with pytest.raises(ContextOverflow, match=r"takes 23 tokens .23 of text.*context holds 20"):
        generator.generate([text(expected[:8])], None, AnswerSettings(most_tokens=15))
    with pytest.raises(ValueError, match="2 prompts for 1 rows"):
        generator.generate([text([1])] * 2, None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"most_tokens": 0}, "most_tokens"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_p": 0.0}, "top_p must be within"),
        ({"frames": -1}, "frames must be at least 0"),
    ],
)
def test_settings_out_of_range(change, told):
    with pytest.raises(ValueError, match=told):
        AnswerSettings(**change)

"""How benchmarks.videollm asks a model and scores it, with a tiny one of random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.parts import videollm_halves, videollm_run
from benchmarks.parts.videollm_halves import fit_and_score, object_states
from benchmarks.parts.videollm_questions import questions
from benchmarks.parts.videollm_run import answer, known_of, score, see, tokens_read
from tests.trajvit_jax.llm.conftest import TOKENIZATION
from tokenization import pipeline, video
from tokenization.recorder import read_settings
from tokenization.records import Record
from tokenization.world.dataset import write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax.confidence import wilson
from trajvit_jax.llm import saved as folders
from trajvit_jax.llm import videollm
from trajvit_jax.llm.answering import AnswerSettings, Question
from trajvit_jax.llm.generation import Generator
from trajvit_jax.llm.videos import VideoReader

WORLD = WorldSettings(width=64, height=64, frames=4, max_objects=2, cut_probability=0.0)
CLIPS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Both splits' clips, and what is in those of the test split."""
    root = tmp_path_factory.mktemp("asked")
    for split in ("train", "test"):
        write_split(root, split, CLIPS, WORLD, progress=False)
    return root, known_of("test", CLIPS, WORLD, 0)


@pytest.fixture(scope="module")
def saved(videollm_folder):
    return folders.load(videollm_folder("trajvit"))


def records_of(root, split):
    """As extraction makes them, without its processes."""
    own = read_settings(TOKENIZATION)
    cut, found = pipeline.build(own.pipeline), []
    for path in sorted((root / split / "videos").glob("*.mp4")):
        frames = video.decode(
            path, frames=4, between=own.pipeline.between, max_side=own.pipeline.max_side,
            video_id=path.stem,
        )  # fmt: skip
        found.append(Record.squash(cut.tokenize(frames), frames.rgb, size=own.record_size))
    return found


def test_answers_are_those_of_the_answerer(world, saved):
    """Clips seen in batches, rows of one length: as each file is answered about alone."""
    root, known = world
    paths = {name: root / "test" / "videos" / f"{name}.mp4" for name in known}
    reader = VideoReader(saved.model.settings.video, read_settings(TOKENIZATION))
    seen = see({name: reader.read(path) for name, path in paths.items()}, saved.model.eyes, batch=4)
    asked = [(name, one) for name, own in known.items() for one in questions(own)][:10]
    generator = Generator(saved.model, saved.chat.stop, batch=4, bucket=124)
    found = answer(asked, seen, saved, generator)
    own = videollm.VideoLLMAnswerer(saved, batch=1)
    expected = own.answer_all(
        [Question(one.text, (paths[name],)) for name, one in asked], AnswerSettings(most_tokens=4)
    )
    assert [text.strip() for text in found] == expected
    assert len(set(found)) > 1
    assert generator.programs[0] == 1  # prompts are of one length


def test_scores_by_kind_and_of_shuffled_clips(world, saved, monkeypatch):
    """A model that knows each clip by heart is right about it, and of another one by chance."""
    root, known = world
    records = records_of(root, "test")
    calls, kinds = [], []

    def by_heart(asked, seen, saved, generator):
        calls.append([(name, one.text) for name, one in asked])
        kinds.extend((name, one.kind) for name, one in asked if len(calls) == 1)
        assert all(name in seen for name, _ in asked)
        told = [{w: one.answer for one in questions(known[n]) for w in one.wordings} for n in known]
        knows = dict(zip(known, told, strict=True))
        return [knows[name].get(one.text, "nothing") for name, one in asked]

    monkeypatch.setattr(videollm_run, "answer", by_heart)
    # One clip could not be cut.
    scores = score(known, records[1:], saved, most=12, seed=0, batch=4)
    # All right is no proof that all are: the interval is Wilson's, of so many clips.
    assert scores and all(one.right == 100 and one.high in (100, None) for one in scores)
    assert any(one.low is not None for one in scores)
    for one in scores:
        about = {name for name, kind in kinds if kind == one.kind}
        low = None if len(about) < 2 else pytest.approx(100 * wilson(1.0, len(about))[0])
        assert one.low == low
    right, shuffled = calls
    assert [text for _, text in right] == [text for _, text in shuffled]
    assert all(one[0] != other[0] for one, other in zip(right, shuffled, strict=True))
    gone = next(iter(known))
    assert gone not in {name for name, _ in right + shuffled}
    assert min(one.shuffled for one in scores) < 50
    assert 1 < tokens_read(records, saved) <= 7


def test_states_of_the_named_objects(world, saved, monkeypatch):
    """In their order; without those of which the six slots hold nothing."""
    root, known = world
    eyes, video_settings = saved.model.eyes, saved.model.settings.video
    records = records_of(root, "test")
    found = object_states(known, records, eyes, video_settings, root / "test" / "truth", 4)
    named = [fact for own in known.values() for fact in own if fact.named]
    left = iter(named)
    assert all(fact in left for _, fact in found) and len(found) > len(named) // 2
    assert {state.shape for state, _ in found} == {(video_settings.encoder.width,)}
    assert fit_and_score(found, found, "colour", ridge=1e-6) == 100
    monkeypatch.setattr(videollm_halves, "_AT_ONCE", 1)  # clips in several parts
    again = object_states(known, records, eyes, video_settings, root / "test" / "truth", 4)
    for (one, fact), (other, same) in zip(found, again, strict=True):
        assert fact == same
        np.testing.assert_allclose(one, other, atol=1e-6)

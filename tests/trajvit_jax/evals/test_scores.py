"""Accuracies of classes and of clips within their video, against slow programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals.class_lists import check_labels, name_of, read_classes
from trajvit_jax.evals.classification import Classified, averaged, classify, measure
from trajvit_jax.evals.embedding import Embedded, Embedder
from trajvit_jax.evals.prompts import TEMPLATES, read_templates
from trajvit_jax.evals.temporal_clips import within


def place(scores, right):
    """Middle of the places that the best of the right ones could have."""
    best = max(scores[i] for i in right)
    others = [score for i, score in enumerate(scores) if i not in right]
    return sum(s > best for s in others) + sum(s == best for s in others) / 2


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9))
def test_accuracies_are_the_slow_ones(seed, n, c):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (n, c)).astype(np.float32)
    found = Classified(scores, rng.integers(c, size=n), tuple(map(str, range(c))))
    values = dict(measure(found).values())
    places = [place(row, {int(own)}) for row, own in zip(found.scores, found.truth, strict=True)]
    right = [at + 1 <= 1 for at in places]
    assert values["top1"] == pytest.approx(100 * np.mean(right))
    classes = sorted(set(found.truth.tolist()))
    by_class = [
        np.mean([r for r, own in zip(right, found.truth, strict=True) if own == one])
        for one in classes
    ]
    assert values["class_mean"] == pytest.approx(100 * np.mean(by_class))
    if len(found.labels) > 5:
        assert values["top5"] == pytest.approx(100 * np.mean([at + 1 <= 5 for at in places]))
    else:
        assert "top5" not in values
    assert values["chance_top1"] == 100 / len(found.labels)


def test_a_constant_score_is_no_hit():
    measured = measure(Classified(np.ones((9, 3)), np.arange(9) % 3, ("a", "b", "c")))
    values = dict(measured.values())
    assert values["top1"] == values["class_mean"] == 0
    high = {one.name: one.interval(draws=9, seed=0) for one in measured.metrics}
    assert high["class_mean"] == high["top1"] and high["top1"][1] > 20  # no certainty


def test_a_class_of_one_video_makes_the_mean_over_classes_less_sure():
    measured = measure(Classified(np.ones((10, 2)), np.array([0] * 9 + [1]), ("a", "b")))
    mean = next(one for one in measured.metrics if one.name == "class_mean")
    assert mean.trials == pytest.approx(4 / (1 / 9 + 1))
    assert mean.interval(draws=9, seed=0)[1] > 50


class _Known(Embedder):
    """Has embedded videos already."""

    def __init__(self, kept, vectors=None):
        self.kept = tuple(kept)
        self.vectors = np.eye(len(self.kept), 4) if vectors is None else np.array(vectors)

    def videos(self, source, keep=None):
        return Embedded(self.vectors.astype(np.float32), self.kept, ())

    def texts(self, captions, text):
        return np.eye(len(captions), 4, dtype=np.float32)


@pytest.fixture(scope="module")
def no_words():
    return WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]"], 4)


@pytest.mark.parametrize("views", [1, 2])
def test_more_records_of_one_id_than_views_are_refused(no_words, views):
    kept = [("a", label, label) for label in "xyx"[: views + 1]]
    with pytest.raises(ValueError, match=rf"has {views + 1} records of one id, not {views}"):
        classify(_Known(kept), [], no_words, views=views)
    assert len(classify(_Known(kept[:views]), [], no_words, views=views).truth) == 1


def test_views_that_are_left_are_averaged(no_words):
    """In each video another view decides; of the last one a view could not be read."""
    views = [("a", 0.9, 0.1), ("a", 0.0, 0.2), ("b", 0.6, 0.4), ("b", 0.1, 0.9), ("c", 0.2, 0.7)]
    kept = [(name, "x" if name == "a" else "y", "-") for name, *_ in views]
    vectors = [[x, y, 0, 0] for _, x, y in views]
    found = classify(_Known(kept, vectors), [], no_words, views=2)
    np.testing.assert_allclose(found.scores, [[0.45, 0.15], [0.35, 0.65], [0.2, 0.7]], atol=1e-6)
    assert found.labels == ("x", "y") and found.truth.tolist() == [0, 1, 1]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_clips_find_their_description_as_the_slow_program_says(seed, count):
    rng = np.random.default_rng(seed)
    clips, texts = rng.integers(-1, 2, (2, 9, 2)).astype(np.float32)
    words = [str(word) for word in rng.integers(4, size=9)]  # some are equal
    texts = np.stack([texts[words.index(word)] for word in words])
    group = rng.permutation(9)[:count]
    found = within(clips, texts, words, group)
    scores = clips[group] @ texts[group].T
    same = [{j for j in range(count) if words[group[j]] == words[group[i]]} for i in range(count)]
    for way, own in (("vid2txt", scores), ("txt2vid", scores.T)):
        expected = [float(place(own[i], same[i]) + 1 <= 1) for i in range(count)]
        np.testing.assert_array_equal(found[way], expected)


# Sentences and classes


def test_a_class_is_the_mean_of_its_sentences_as_the_released_program_has_it():
    """Which weighs by how much sentences agree: the mean is not normalized."""
    vectors = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = averaged(vectors, "mean")
    np.testing.assert_allclose(found, [own.astype(np.float64).sum(0) / 3 for own in vectors])
    assert (np.linalg.norm(found, axis=1) < 0.99).all()
    unit = averaged(vectors, "unit")
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    np.testing.assert_allclose(unit * np.linalg.norm(found, axis=1)[:, None], found)


def test_the_published_sets():
    assert {name: len(own) for name, own in TEMPLATES.items()} == {
        "none": 1,
        "kinetics": 28,
        "ucf101": 48,
        "imagenet": 7,
        "actionclip": 16,
    }
    for name, own in TEMPLATES.items():
        assert len(set(own)) == len(own) and all(one.count("{}") == 1 for one in own), name
    assert "a photo of {}." in TEMPLATES["kinetics"]
    assert "a demonstration of a person practicing {}." in TEMPLATES["kinetics"]
    assert "a video of the person {}." in TEMPLATES["ucf101"]


def test_files_of_sentences_and_of_classes(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("a {} there\n\n{}\n")
    assert read_templates(str(own)) == ("a {} there", "{}")
    own.write_text("a {} there\nnothing\n")
    with pytest.raises(ValueError, match=r"sentence 2, 'nothing', needs one \{\}"):
        read_templates(str(own))
    with pytest.raises(ValueError, match="no set of prompts and no file; did you mean 'kinetics'"):
        read_templates("kinetic")
    own.write_text("ApplyEyeMakeup\nn01440764\ttench\nbrush_hair\n")
    assert read_classes(str(own)) == {
        "ApplyEyeMakeup": "apply eye makeup",
        "n01440764": "tench",
        "brush_hair": "brush hair",
    }
    own.write_text("n02012849 crane\nn03126707 crane, hoist\n")
    assert read_classes(str(own)) == {"n02012849": "crane", "n03126707": "crane"}
    own.write_text("1 ApplyEyeMakeup\n2 Archery\n")
    assert read_classes(str(own)) == {"ApplyEyeMakeup": "apply eye makeup", "Archery": "Archery"}
    own.write_text("a\na\n")
    with pytest.raises(ValueError, match="has the class 'a' twice"):
        read_classes(str(own))
    with pytest.raises(FileNotFoundError, match="--classes names a list"):
        read_classes(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("name", "content", "classes"),
    [
        (
            "something-something-v2-labels.json",
            '{"Holding something": "1", "Approaching [something] with your camera": "0"}',
            {
                "Approaching something with your camera": "Approaching something with your camera",
                "Holding something": "Holding something",
            },
        ),
        (
            "imagenet_class_index.json",
            '{"1": ["n01443537", "goldfish"], "0": ["n01440764", "great_white_shark"]}',
            {"n01440764": "great white shark", "n01443537": "goldfish"},
        ),
        ("own.json", '["b", "a"]', {"b": "b", "a": "a"}),
        (
            "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
            'item {\n  name: "stand"\n  id: 12\n}\n'
            'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\n',
            {"bend/bow (at the waist)": "bend/bow (at the waist)", "stand": "stand"},
        ),
    ],
)
def test_lists_as_datasets_publish_them(tmp_path, name, content, classes):
    path = tmp_path / name
    path.write_text(content)
    assert list(read_classes(str(path)).items()) == list(classes.items())  # in their order


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", "{", "is no list of classes"),
        ("a.json", '{"a": "first"}', "is no list of classes"),
        ("a.json", '{"7": ["n01440764", "tench"]}', "is no list of classes"),
        ("a.json", "[]", "has no class"),
        ("a.json", "3", "is no list of classes .it is 3."),
        ("a.json", "[[1]]", "is no list of classes .its items are not labels"),
        ("a.json", '{"0": [1, 2], "1": "a"}', "is no list of classes"),
        ("a.json", '["a", "b", "a"]', "has the class 'a' twice"),
        ("a.pbtxt", 'item { name: "a" }', "is no list of items"),
        ("a.txt", "\n\n", "has no class"),
    ],
)
def test_lists_of_no_known_form(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=reason):
        read_classes(str(path))


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.pbtxt"])
def test_files_in_another_encoding_are_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes("café\n{}".encode("latin-1"))
    said = r"is not UTF-8 \(byte 3 is 0xe9\): --classes names .*; write it in UTF-8"
    with pytest.raises(ValueError, match=rf"{name} {said}"):
        read_classes(str(path))
    with pytest.raises(ValueError, match=r"is not UTF-8 .*--prompts names sentences"):
        read_templates(str(path))
    (tmp_path / "b.txt").write_text("walk\n", "utf-8-sig")
    assert read_classes(str(tmp_path / "b.txt")) == {"walk": "walk"}  # no part of the label


def test_names_and_labels():
    assert name_of("Pushing something so that it falls") == "Pushing something so that it falls"
    assert name_of("TaiChi") == "tai chi"
    check_labels(["a", "b"], ["a", "b", "c"], "here")
    with pytest.raises(ValueError, match=r"here is labelled 'walkng', .* 'walking'"):
        check_labels(["walkng", "walking", "walkng"], ["walking"], "here")

"""WUPS by hand on a WordNet of ten senses, and as NLTK computes it where both are at hand."""

from __future__ import annotations

import zipfile

import pytest

from tests.trajvit_jax.llm.benchmarks.conftest import NEXTQA_OPEN, csv
from trajvit_jax.llm.benchmarks import registry
from trajvit_jax.llm.benchmarks.wordnet import WordNet
from trajvit_jax.llm.benchmarks.wups import base_form, words, wups


def similarity(wordnet: WordNet, one: str, other: str) -> float:
    first, second = wordnet.first_sense(one), wordnet.first_sense(other)
    assert first is not None
    assert second is not None
    return wordnet.similarity(first, second)


def test_similarity_by_hand(wordnet):
    # entity 1, animal and place 2, dog, cat and park 3 deep.
    assert similarity(wordnet, "dog", "cat") == pytest.approx(2 * 2 / (3 + 3))
    assert similarity(wordnet, "dog", "park") == pytest.approx(2 * 1 / (3 + 3))
    assert similarity(wordnet, "dog", "animal") == pytest.approx(2 * 2 / (3 + 2))
    assert similarity(wordnet, "dog", "dog") == 1.0
    # A root is put above verbs: walk and run are 3 deep. Their common ancestor "move" and the root
    # have equally short ways to a top, and NLTK then takes the first by name, the root.
    assert similarity(wordnet, "walk", "run") == pytest.approx(2 * 1 / (3 + 3))
    assert similarity(wordnet, "walk", "sleep") == pytest.approx(2 * 1 / (3 + 2))
    assert similarity(wordnet, "dog", "sleep") == pytest.approx(2 * 1 / (4 + 2))


def test_base_forms(wordnet):
    assert [base_form(word, wordnet) for word in ("dogs", "walking", "ran", "walks", "blue")] == [
        "dog",
        "walk",
        "run",
        "walk",
        "blue",
    ]
    assert words("The dogs don't walk, he's two.", wordnet) == [
        "dog",
        "n't",
        "walk",
        ",",
        "'s",
        "two",
        ".",
    ]


def test_wups_by_hand(wordnet):
    said, right = words("dogs walking", wordnet), words("a cat walks", wordnet)
    assert (said, right) == (["dog", "walk"], ["cat", "walk"])
    # Each way: the best of dog is cat with 2/3, of walk itself; both ways alike.
    assert wups(said, right, wordnet, 0.0) == pytest.approx(2 / 3)
    assert wups(said, right, wordnet, 0.9) == pytest.approx(0.1 * 2 / 3)
    # The smaller way: park has no word of its own on the other side but cat (1/3).
    assert wups(["cat"], ["cat", "park"], wordnet, 0.0) == pytest.approx(1 / 3)
    # Words that are like none are passed over, unless all are.
    assert wups(["cat", "zzz"], ["cat"], wordnet, 0.0) == 1.0
    assert wups(["zzz"], ["cat"], wordnet, 0.0) == 0.0
    assert wups([], ["cat"], wordnet, 0.0) == 0.0


def test_nextqa_open_ended_by_hand(folder, wordnet):
    rows = [
        NEXTQA_OPEN | {"answer": "a cat"},
        NEXTQA_OPEN | {"qid": "9", "answer": "two", "type": "DC"},
        NEXTQA_OPEN | {"qid": "10", "answer": "park"},
    ]
    second = {"257": {"10": "dog"}}
    files = folder.put("t.csv", csv(*rows)), folder.put("a.json", second)
    benchmark = registry.find("nextqa_oe", wordnet=wordnet)
    items = benchmark.read(files).items
    marks = [benchmark.marks(*pair) for pair in zip(items, ("dog", "2", "the dogs"), strict=True)]
    assert marks[0] == pytest.approx({"exact_match": 0, "wups": 2 / 3, "wups_0.9": 0.2 / 3})
    assert marks[1] == {"exact_match": 0, "wups": 0, "wups_0.9": 0}  # counts must be equal
    assert marks[2] == {"exact_match": 0, "wups": 1, "wups_0.9": 1}  # the second answer
    assert registry.find("nextqa_oe").marks(items[0], "the cat") == {"exact_match": 1}


def test_wordnet_of_a_zip_file_or_a_folder_above(wordnet_folder, tmp_path):
    path = tmp_path / "wordnet.zip"
    with zipfile.ZipFile(path, "w") as file:
        for each in wordnet_folder.iterdir():
            file.write(each, f"wordnet/{each.name}")
    assert similarity(WordNet(path), "dog", "cat") == pytest.approx(2 / 3)
    assert similarity(WordNet(wordnet_folder.parent), "dog", "cat") == pytest.approx(2 / 3)


def test_what_is_no_wordnet(wordnet_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="--wordnet names"):
        WordNet(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"there is no index\.noun"):
        WordNet(tmp_path)
    (tmp_path / "x.zip").write_text("x")
    with pytest.raises(ValueError, match=r"neither a folder nor a \.zip"):
        WordNet(tmp_path / "x.zip")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in wordnet_folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "data.noun").write_text("other\n" * 100)
    with pytest.raises(ValueError, match="not of one release"):
        similarity(WordNet(broken), "dog", "cat")

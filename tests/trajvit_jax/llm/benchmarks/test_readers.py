"""Readers on small files in the published schemas, on bad ones, and on the true files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.trajvit_jax.llm.benchmarks.conftest import (
    CAPTION,
    CAPTIONING,
    CHOICE,
    MLVU,
    MOVIE,
    NEXTQA,
    NEXTQA_OPEN,
    SCENE,
    VIDEO_MME,
    csv,
)
from tokenization.annotations.problems import AnnotationError
from tokenization.video import decode


def test_video_mme_rows_and_videos(folder):
    rows = folder.put("rows.jsonl", json.dumps(VIDEO_MME) + "\n")
    (item,) = folder.read("videomme", rows).items
    assert item.prompt == (
        "Select the best answer to the following multiple-choice question based on the video and "
        "the subtitles. Respond with only the letter (A, B, C, or D) of the correct option.\n"
        "How many red socks are there?\nA. 1.\nB. 4.\nC. 2.\nD. 3.\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (item.answer, item.options) == ("D", ("1.", "4.", "2.", "3."))
    assert (item.id, item.videos) == ("001-1", ("fFjv93ACGo8", "001"))
    assert item.groups["duration"] == "short"
    # The published template has commas that JSON does not allow; those in texts stay.
    keys = ("question_id", "task_type", "question", "options", "answer")
    asked = {name: VIDEO_MME[name] for name in keys} | {"question": "What, ] or }?"}
    video = {name: VIDEO_MME[name] for name in ("video_id", "duration", "domain", "sub_category")}
    text = json.dumps([video | {"questions": [asked]}]).replace("}", ",}").replace("or ,}", "or }")
    (other,) = folder.read("videomme", folder.put("template.json", text)).items
    assert (other.id, other.videos, other.question) == ("001-1", ("001",), "What, ] or }?")


def test_video_mme_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = folder.path / "test.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([VIDEO_MME]), path)
    assert folder.read("videomme", path).items[0].answer == "D"
    assert folder.read("videomme", folder.path).items[0].answer == "D"


def test_nextqa_multiple_choice(folder):
    file = folder.put("test.csv", csv(NEXTQA, NEXTQA | {"qid": "9", "type": "TP"}))
    folders = folder.put("map.json", {"257": "1101/257"})
    first, second = folder.read("nextqa_mc", file, folders).items
    assert first.prompt == (
        "where is this place\nA. mall\nB. river\nC. swimming pool\nD. living room\nE. mountain"
    )
    assert (first.id, first.answer, first.videos) == ("257_8", "B", ("257", "1101/257"))
    assert (first.groups["family"], second.groups["type"]) == ("descriptive", "TN")


def test_nextqa_open_ended_with_second_answers(folder):
    file = folder.put("test.csv", csv(NEXTQA_OPEN, NEXTQA_OPEN | {"qid": "9"}))
    second = folder.put("add_reference_answer_test.json", {"257": {"8": "outdoors"}})
    first, other = folder.read("nextqa_oe", file, second).items
    assert first.prompt == (
        "where is this place\nAnswer a question using a short phrase or sentence."
    )
    assert (first.answer, first.also, other.also) == ("a park", ("outdoors",), ())


def test_activitynet_qa_joins_both_files(folder):
    asked = {"video_name": "1Q", "question": "is he in", "question_id": "v_1Q_3"}
    answered = {"answer": "no", "type": 3, "question_id": "v_1Q_3"}
    files = folder.put("test_q.json", [asked]), folder.put("test_a.json", [answered])
    (item,) = folder.read("activitynet_qa", *files).items
    assert item.prompt == "Is he in? Answer the question using a single word or phrase."
    assert (item.answer, item.groups, item.videos) == ("no", {"type": "yes/no"}, ("v_1Q", "1Q"))
    with pytest.raises(AnnotationError, match="'v_1Q_3' has no answer"):
        folder.read("activitynet_qa", files[0])


def test_mlvu_takes_its_tasks_of_a_folder(folder):
    twice = MLVU | {"candidates": ["three", "two", "three", "six"], "answer": "three"}
    folder.put("3_ego.json", [MLVU, twice, MLVU | {"answer": "a knife"}])
    folder.put("8_sub_scene.json", [SCENE])
    found = folder.read("mlvu", folder.path)
    first, second = found.items
    assert first.prompt == (
        "Question: What did I drop?\nOptions:\n(A) a sponge\n(B) a pen\n(C) an apple\n"
        "(D) a banana\nOnly give the best option.\nBest option: ("
    )
    assert (first.answer, first.id) == ("B", "ego_0")
    assert first.videos == ("3_ego/ego_35.mp4", "ego_35.mp4")
    assert (second.answer, second.also) == ("A", ("C",))
    (bad,) = found.unusable
    assert "3_ego.json item 2: the answer 'a knife' is none of its candidates" in str(bad)
    (scene,) = folder.read("mlvu_generation", folder.path).items
    assert (scene.prompt, scene.points) == ("Describe the scene.", ("He runs",))
    with pytest.raises(AnnotationError, match="no question_type is one of subPlot, summary"):
        folder.read("mlvu_generation", folder.path / "3_ego.json")


def test_tempcompass_tasks(folder):
    choice = folder.put("multi-choice.json", {"12": {"action": [CHOICE, CHOICE]}})
    first, second = folder.read("tempcompass_multi_choice", choice).items
    assert first.prompt == f"{CHOICE['question']}\nPlease directly give the best option:"
    assert (first.answer, first.options, second.id) == ("B", ("dunking", "passing"), "12/action/1")
    question = {"question": "Does he dunk?", "answer": "no"}
    file = folder.put("yes_no.json", {"12": {"action": [question]}})
    assert folder.read("tempcompass_yes_no", file).items[0].prompt == (
        "Does he dunk?\nPlease answer yes or no:"
    )
    file = folder.put("caption_matching.json", {"12": {"action": [CAPTION]}})
    assert folder.read("tempcompass_caption_matching", file).items[0].answer == CAPTION["answer"]
    folder.put("captioning.json", {"12": {"action": [CAPTIONING]}})
    (item,) = folder.read("tempcompass_captioning", folder.path).items
    assert (item.prompt, item.question) == (CAPTIONING["question"], CHOICE["question"])
    assert item.answer == "B"
    with pytest.raises(AnnotationError, match=r"name multi-choice\.json, too"):
        folder.read("tempcompass_captioning", folder.path / "captioning.json")


def test_moviechat_stops_at_breakpoints(folder):
    file = folder.put("gt/1.json", MOVIE)
    (whole,) = folder.read("moviechat_global", file.parent).items
    assert whole.prompt.endswith("explain your answers in detail.Is it day?")
    assert (whole.stop, whole.videos, whole.id) == (None, ("1.mp4",), "1.mp4/global/0")
    (part,) = folder.read("moviechat_breakpoint", file.parent).items
    assert part.stop == 10.0
    row = {"video_name": "1.mp4", "question": "Is it day?", "answer": "Yes.", "time": 0}
    rows = folder.put("rows.jsonl", json.dumps(row) + "\n")
    assert folder.read("moviechat_global", rows).items[0].answer == "Yes."
    with pytest.raises(AnnotationError, match="no frame rates"):
        folder.read("moviechat_breakpoint", rows)


def test_moviechat_overlooks_keys_that_it_does_not_know(folder):
    question = {"question": "Is it day?", "answer": "Yes.", "hint": "sun", "time": 0}
    movie = MOVIE | {"mood": "dark", "global": [question, question]}
    folder.put("gt/1.json", movie)
    found = folder.read("moviechat_global", folder.path / "gt")
    assert len(found.items) == 2
    assert found.notes == {"unknown": "keys that mean nothing here: 'hint' 2, 'mood' 1"}
    del movie["breakpoint"]
    folder.put("gt/1.json", movie)
    assert len(folder.read("moviechat_global", folder.path / "gt").items) == 2
    row = {"video_name": "1.mp4", "question": "Is it day?", "answer": "Yes.", "id": 3, "time": -1}
    rows = folder.put("rows.jsonl", json.dumps(row) + "\n")
    assert folder.read("moviechat_global", rows).notes["unknown"].endswith("'id' 1")
    assert not folder.read("moviechat_global", folder.put("2.json", MOVIE)).notes


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_questions_up_to_a_moment_are_none_of_the_global_ones(folder, kind):
    row = {"video_name": "1.mp4", "question": "Who is it?", "answer": "A man.", "time": 250}
    if kind == "json":
        del row["video_name"]
        file = folder.put("1.json", MOVIE | {"global": [row]})
    else:
        file = folder.put("1.jsonl", json.dumps(row) + "\n")
    with pytest.raises(AnnotationError) as error:
        folder.read("moviechat_global", file)
    message = str(error.value)
    assert message.startswith(str(file)) and "has 'time': 250, so it is a question of" in message
    assert "name the file of the global questions" in message


def test_a_breakpoint_at_the_first_frame_shows_that_frame(folder, tmp_path):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 8, (64, 48))
    for level in range(20, 220, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    question = {"time": 0, "question": "Who is it?", "answer": "A man."}
    movie = MOVIE | {"info": {"video_path": "clip.mp4", "fps": 8}, "breakpoint": [question]}
    (item,) = folder.read("moviechat_breakpoint", folder.put("gt/1.json", movie)).items
    seen = decode(path, frames=4, end=item.stop).rgb
    first = decode(path, frames=10).rgb[:1]
    assert (seen == first).all()


def test_prompts_keep_space_where_those_of_lmms_eval_do(folder):
    def asked(benchmark, *files):
        (item,) = folder.read(benchmark, *files).items
        return item

    rows = [
        {"video_name": "1Q", "question": "is he in ", "question_id": "q"},
        {"answer": "no ", "type": 3, "question_id": "q"},
    ]
    files = [folder.put(f"{number}.json", [row]) for number, row in enumerate(rows)]
    item = asked("activitynet_qa", *files)
    assert item.prompt == "Is he in ? Answer the question using a single word or phrase."
    assert (item.question, item.answer) == ("is he in", "no")
    row = MLVU | {"question": " What?\n", "candidates": ["a pen ", "a cup "], "answer": "a cup "}
    item = asked("mlvu", folder.put("3_ego.json", [row]))
    assert item.prompt == (
        "Question:  What?\n\nOptions:\n(A) a pen \n(B) a cup\nOnly give the best option.\n"
        "Best option: ("
    )
    assert (item.answer, item.options) == ("B", ("a pen", "a cup"))
    row = SCENE | {"question": "What? "}
    assert asked("mlvu_generation", folder.put("8_sub_scene.json", [row])).prompt == "What? "
    row = VIDEO_MME | {"question": "How many? ", "options": ["A. 1 ", "B. 4"], "answer": "B"}
    item = asked("videomme", folder.put("v.jsonl", json.dumps(row) + "\n"))
    assert "option.\nHow many? \nA. 1 \nB. 4\n\nAnswer" in item.prompt
    assert item.options == ("1", "4")
    movie = MOVIE | {"global": [{"question": " Is it day? ", "answer": "Yes."}]}
    assert asked("moviechat_global", folder.put("m.json", movie)).prompt.endswith(". Is it day? ")
    row = {"question": CHOICE["question"] + " ", "answer": CHOICE["answer"]}
    item = asked("tempcompass_multi_choice", folder.put("c.json", {"1": {"action": [row]}}))
    assert item.prompt == f"{CHOICE['question']} \nPlease directly give the best option:"
    row = {"question": "Does he? ", "answer": "no"}
    item = asked("tempcompass_yes_no", folder.put("y.json", {"1": {"action": [row]}}))
    assert item.prompt == "Does he? \nPlease answer yes or no:"
    item = asked("nextqa_oe", folder.put("o.csv", csv(NEXTQA_OPEN | {"question": "where is it "})))
    assert item.prompt.startswith("where is it\nAnswer")  # it strips these


@pytest.mark.parametrize(
    ("benchmark", "name", "content", "message"),
    [
        ("videomme", "a.jsonl", VIDEO_MME | {"answer": "E"}, "'E', which must be one of"),
        ("videomme", "a.jsonl", VIDEO_MME | {"anwser": "D"}, "did you mean 'answer'"),
        ("videomme", "a.jsonl", VIDEO_MME | {"duration": "shrt"}, "did you mean 'short'"),
        ("videomme", "a.jsonl", VIDEO_MME | {"options": ["A. 1.", "C. 2."]}, "start with 'B.'"),
        ("videomme", "a.txt", "", "is no .json, .jsonl, .csv or .parquet file"),
        ("videomme", "a.parquet", "PAR1", "is no Parquet file"),
        ("nextqa_mc", "a.csv", csv(NEXTQA | {"answer": "5"}), "must be 0 to 4"),
        ("nextqa_mc", "a.csv", csv(NEXTQA, NEXTQA), "'257_8' comes twice"),
        ("nextqa_mc", "a.csv", csv(NEXTQA | {"type": "XX"}), "'type': 'XX'"),
        ("nextqa_mc", "a.csv", csv(NEXTQA_OPEN), "has no 'a0'"),
        ("nextqa_mc", "a.csv", csv(NEXTQA | {"a1": ""}), "'a1': '', which must be a text"),
        ("nextqa_oe", "a.csv", csv(NEXTQA), "unknown key 'a0'"),
        ("nextqa_oe", "a.json", {"257": {"8": "x"}}, "no file has questions"),
        ("nextqa_oe", "a.json", {"257": 3}, "is it the file of another benchmark"),
        ("activitynet_qa", "a.json", [{"answer": "x", "type": 1}], "has no 'question_id'"),
        ("mlvu", "a.json", [MLVU | {"question_type": "egg"}], "did you mean 'ego'"),
        ("mlvu", "a.json", [], "no question_type is one of plotQA"),
        ("mlvu_generation", "a.json", [SCENE | {"scoring_points": []}], "no 'scoring_points'"),
        ("tempcompass_multi_choice", "a.json", {"1": {"motion": []}}, "unknown key 'motion'"),
        (
            "tempcompass_multi_choice",
            "a.json",
            {"1": {"action": [CHOICE | {"answer": "C. x"}]}},
            "'C. x', which is none of its options",
        ),
        ("tempcompass_yes_no", "a.json", {"1": {"action": [CHOICE]}}, "known: no, yes"),
        ("tempcompass_caption_matching", "a.json", {"1": {"action": [CHOICE]}}, "'Caption A: ..'"),
        ("tempcompass_yes_no", "a.json", [], "should map videos to dimensions"),
        ("moviechat_global", "a.json", {"info": {}}, "has no 'global'"),
        ("moviechat_global", "a.json", MOVIE | {"global": 3}, "'global', which must be a list"),
        ("moviechat_breakpoint", "a.json", MOVIE | {"info": {"video_path": "1"}}, "without 'fps'"),
        ("moviechat_global", "a.json", MOVIE | {"global": []}, "there is no question"),
        ("videomme", "a.json", "{", "is no JSON file"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(folder, benchmark, name, content, message):
    if name.endswith(".jsonl"):
        content = json.dumps(content) + "\n"
    file = folder.put(name, content)
    with pytest.raises(AnnotationError) as error:
        folder.read(benchmark, file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_missing_files_and_empty_folders(folder):
    with pytest.raises(AnnotationError, match=r"gone\.csv does not exist"):
        folder.read("nextqa_mc", folder.path / "gone.csv")
    with pytest.raises(AnnotationError, match=r"has no files \[1-9\]_\*\.json"):
        folder.read("mlvu", folder.path)


TRUE = {
    "videomme": (["videomme/output_test_template.json"], 9, 0),
    "nextqa_mc": (["nextqa/test.csv", "nextqa/map_vid_vidorID.json"], 8564, 0),
    "activitynet_qa": (["activitynet_qa/test_q.json", "activitynet_qa/test_a.json"], 8000, 0),
    "mlvu": (["mlvu/2_needle.json", "mlvu/3_ego.json"], 705, 2),
    "mlvu_generation": (["mlvu"], 418, 0),
    "tempcompass_multi_choice": (["tempcompass"], 1580, 0),
    "tempcompass_yes_no": (["tempcompass"], 2453, 0),
    "tempcompass_caption_matching": (["tempcompass"], 1503, 0),
    "tempcompass_captioning": (["tempcompass"], 2004, 0),
}


@pytest.mark.parametrize("benchmark", TRUE)
def test_true_files(folder, benchmark):
    root = Path(os.environ.get("TRAJVIT_TEST_DATA", "")) / "annotations"
    names, items, unusable = TRUE[benchmark]
    if "TRAJVIT_TEST_DATA" not in os.environ or not root.is_dir():
        pytest.skip("TRAJVIT_TEST_DATA names no folder with annotations/")
    found = folder.read(benchmark, *(root / name for name in names))
    assert (len(found.items), len(found.unusable)) == (items, unusable)
    assert all(item.prompt and item.videos for item in found.items)

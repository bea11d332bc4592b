"""Judges are real programs here; what they say is checked before it counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.trajvit_jax.llm.benchmarks.conftest import CAPTIONING, CHOICE, SCENE
from trajvit_jax.llm.benchmarks import registry
from trajvit_jax.llm.benchmarks.contract import Item
from trajvit_jax.llm.benchmarks.judge import Judge, JudgeError

PROGRAM = f"{sys.executable} {Path(__file__).parent / 'judge_program.py'}"
ITEM = Item("q1", ("v",), "what is he doing", "", "skiing")


def judged(name: str, items, replies) -> list[dict[str, float]]:
    """Marks of a judge, in order; {} where it is not asked."""
    judging = registry.find(name).judging
    assert judging is not None
    marks = []
    with Judge(PROGRAM) as judge:
        for item, reply in zip(items, replies, strict=True):
            request = judging.request(item, reply)
            marks.append({} if request is None else judging.marks(item, judge.ask(request)))
    return marks


def test_open_answers_get_yes_or_no_and_a_score():
    marks = judged("activitynet_qa", [ITEM, ITEM], ["He is skiing", "he swims"])
    assert marks[0] == {"judge_accuracy": 1.0, "judge_score": 5.0}
    assert marks[1] == {"judge_accuracy": 0.0, "judge_score": 1.0}


def test_the_judge_is_asked_only_what_rules_cannot_read(folder):
    file = folder.put("m.json", {"1": {"action": [CHOICE] * 3}})
    items = folder.read("tempcompass_multi_choice", file).items
    replies = ["A", "it must be B", "nothing of it"]
    assert judged("tempcompass_multi_choice", items, replies) == [
        {},
        {"accuracy": 1.0},
        {"accuracy": 0.0},
    ]


def test_captions_are_judged_by_the_option_they_support(folder):
    folder.put("multi-choice.json", {"1": {"action": [CHOICE]}})
    folder.put("captioning.json", {"1": {"action": [CAPTIONING] * 2}})
    items = folder.read("tempcompass_captioning", folder.path).items
    marks = judged("tempcompass_captioning", items, ["He is passing it.", "He runs."])
    assert marks == [{"judge_accuracy": 1.0}, {"judge_accuracy": 0.0}]


def test_who_judges_a_caption_is_not_told_the_right_letter(folder):
    folder.put("multi-choice.json", {"1": {"action": [CHOICE]}})
    folder.put("captioning.json", {"1": {"action": [CAPTIONING]}})
    (item,) = folder.read("tempcompass_captioning", folder.path).items
    judging = registry.find("tempcompass_captioning").judging
    assert judging is not None
    request = judging.request(item, "He runs.")
    assert request is not None
    assert set(request) == {"task", "id", "question", "prediction", "instructions", "options"}


def test_generation_gets_two_ratings_and_their_sum(folder):
    items = folder.read("mlvu_generation", folder.put("8_sub_scene.json", [SCENE])).items
    (marks,) = judged("mlvu_generation", items, ["I see: he runs."])
    assert marks == {"judge_accuracy": 4.0, "judge_relevance": 4.0, "judge_score": 8.0}


def test_a_request_says_all_that_a_judge_needs(folder):
    judging = registry.find("moviechat_global").judging
    assert judging is not None
    request = judging.request(ITEM, "he skis")
    assert request is not None
    assert request | {"instructions": ""} == {
        "task": "match",
        "id": "q1",
        "question": "what is he doing",
        "answer": "skiing",
        "prediction": "he skis",
        "instructions": "",
    }
    assert "0" in request["instructions"]
    assert "5" in request["instructions"]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"correct": "yes", "score": 5}, "'correct' is 'yes', which must be true or false"),
        ({"correct": True, "score": 5.5}, "'score' is 5.5, which must be a number 0 to 5"),
        ({"correct": True}, "'score' is None"),
        ({"correct": True, "score": True}, "'score' is True"),
    ],
)
def test_replies_of_another_form_are_errors(reply, message):
    judging = registry.find("activitynet_qa").judging
    assert judging is not None
    with pytest.raises(JudgeError) as error:
        judging.marks(ITEM, reply)
    assert message in str(error.value)


def test_a_choice_must_be_a_letter_of_the_question(folder):
    folder.put("multi-choice.json", {"1": {"action": [CHOICE]}})
    folder.put("captioning.json", {"1": {"action": [CAPTIONING]}})
    (item,) = folder.read("tempcompass_captioning", folder.path).items
    judging = registry.find("tempcompass_captioning").judging
    assert judging is not None
    for choice in ("C", "passing", 1):
        with pytest.raises(JudgeError, match="must be one of A, B, or null"):
            judging.marks(item, {"choice": choice})


@pytest.mark.parametrize(
    ("command", "patience", "message"),
    [
        ("no-such-program", 9.0, "cannot be started: No such file"),
        ("", 9.0, "--judge is empty"),
        ("'", 9.0, "cannot be read: No closing quotation"),
        (f"{PROGRAM} --fault=text", 9.0, "printed 'what?', not one JSON object"),
        (f"{PROGRAM} --fault=slow", 0.3, "did not reply within 0.3 seconds"),
        ("false", 9.0, "ended with exit code 1"),
    ],
)
def test_judges_that_fail_are_named(command, patience, message):
    request = {"task": "match", "answer": "a", "prediction": "a"}
    with pytest.raises(JudgeError) as error, Judge(command, patience=patience) as judge:
        judge.ask(request)
    assert message in str(error.value)

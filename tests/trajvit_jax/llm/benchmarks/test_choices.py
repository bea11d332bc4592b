"""Which option a reply means: lmms-eval's rules as it applies them, and any usual form."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trajvit_jax.llm.benchmarks import choices, tempcompass
from trajvit_jax.llm.benchmarks.contract import Item

GOLDEN = Path(__file__).parents[3] / "goldens" / "lmms_eval_replies.json"
OPTIONS = ("a red dog", "a cat", "two dogs", "nothing")
WORDS = st.sampled_from(["red", "dog", "cat", "runs", "two", "slowly", "park", "tree", "looks"])
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


def own_rule(case, reply):
    """What lmms_rules.py prints for a reply, by our rules."""
    if case["rule"] == "surest_letter":
        return choices.surest_letter(reply, "ABCDE"[: len(case["options"])])
    if case["rule"] == "last_letter":
        return choices.last_letter(reply, case["options"])
    question, answer = case["question"], case["answer"]
    lines = tuple(line.strip() for line in question.split("\n")[1:])
    given = {
        "multi_choice": (answer[0], tuple(line[3:] for line in lines)),
        "yes_no": (answer, ()),
        "caption_matching": (answer, lines),
    }[case["rule"]]
    item = Item("q", ("v",), question, "", *given)
    marks = getattr(tempcompass, f"{case['rule']}_marks")(item, reply)
    return None if marks["unread"] else int(marks["accuracy"])


CASES = json.loads(GOLDEN.read_text("utf-8"))["cases"]


@pytest.mark.parametrize("rule", sorted({case["rule"] for case in CASES}))
def test_rules_equal_those_of_lmms_eval(rule):
    cases = [case for case in CASES if case["rule"] == rule]
    assert sum(len(case["replies"]) for case in cases) > 50
    for case in cases:
        own = {reply: own_rule(case, reply) for reply in case["replies"]}
        assert own == case["replies"], case


@pytest.mark.slow
def test_rules_equal_those_of_lmms_eval_on_drawn_replies():
    python = os.environ.get("TRAJVIT_LMMS_EVAL_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("TRAJVIT_LMMS_EVAL_PYTHON names no Python with lmms-eval: make test-lmms")
    pieces = st.sampled_from(
        ["A", "B", "C", "D", "(B)", "C.", "D)", "A:", "answer is", "the best option is", "i pick",
         "a cat", "two dogs", "nothing", "I", "do", ".", "!", "\n", "yes", "No"]
    )  # fmt: skip
    replies = st.lists(pieces, max_size=8).map(" ".join)
    drawn = []

    @given(replies)
    def draw(reply):
        drawn.append(reply.strip())

    draw()
    rules = [{"rule": rule, "options": list(OPTIONS)} for rule in ("surest_letter", "last_letter")]
    lines = [(rule, reply) for rule in rules for reply in drawn]
    done = subprocess.run(
        [python, str(Path(__file__).parent / "lmms_rules.py")],
        input="".join(json.dumps(rule | {"reply": reply}) + "\n" for rule, reply in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [own_rule(rule, reply) for rule, reply in lines] == theirs


@st.composite
def options_and_one(draw):
    texts = draw(st.lists(TEXTS, min_size=2, max_size=5, unique=True))
    return texts, draw(st.integers(0, len(texts) - 1))


FORMS = (
    "{l}", "{s}", "({l})", "({s})", "{l}.", "{s}.", "{l})", "[{l}]", "{l}. {t}", "({l}) {t}",
    "{l}: {t}", "Answer: {l}", "Answer: {s}", "answer {l}", "The answer is {l}.",
    "The answer is ({s}).", "The best option is {l}", "Option {l}", "**{l}**", '"{l}"',
    "The correct answer is {l} because it can be seen.", "{t}", "{t}.", "{l}.\n",
    "The answer is ({l}), not (Z) or (Y)",
    "So I would say that the final answer is ({l})", "Best option: ({l}",
)  # fmt: skip


@given(options_and_one(), st.sampled_from(FORMS))
def test_any_usual_form_is_read(options_and_right, form):
    texts, right = options_and_right
    letter = "ABCDE"[right]
    reply = form.format(l=letter, s=letter.lower(), t=texts[right])
    assert choices.any_letter(reply, texts) == letter


@given(options_and_one())
def test_the_text_of_one_option_alone_is_read_in_a_longer_reply(options_and_right):
    texts, right = options_and_right
    reply = f"I think it shows {texts[right]}, as far as one sees"
    inside = [text for text in texts if f" {text} " in f" {texts[right]} "]
    longest = max(inside, key=len)  # an option may be part of another one
    assert choices.any_letter(reply, texts) == "ABCDE"[texts.index(longest)]


@given(st.text())
def test_whatever_is_said_the_letter_is_an_option_or_none(reply):
    for found in (
        choices.any_letter(reply, OPTIONS),
        choices.last_letter(reply, OPTIONS),
        choices.surest_letter(reply, "ABCD"),
    ):
        assert found in (*"ABCD", None)
    assert choices.any_yes_no(reply) in ("yes", "no", None)


@pytest.mark.parametrize(
    "reply",
    ["", "E", "I do not know.", "a red dog and a cat", "(A) (B)", "A dog", "he said: a lot"],
)
def test_what_names_no_single_option_is_not_read(reply):
    assert choices.any_letter(reply, OPTIONS) is None


def test_numbers_as_options_are_texts_and_labels_may_be_numbers():
    assert choices.any_letter("2", ["2", "1", "5", "4"]) == "A"
    assert choices.any_letter("Option 2", ["he runs", "he walks"], ["1", "2"]) == "2"
    assert choices.any_letter("2", ["he runs", "he walks"], ["1", "2"]) == "2"


@pytest.mark.parametrize(
    ("reply", "meant"),
    [
        ("yes", "yes"), ("No.", "no"), ("YES, he is", "yes"), ("The answer is no", "no"),
        (" no, but yes later", "no"), ("Not sure", None), ("yes or no", "yes"), ("it may be", None),
        ("I know nothing", None), ("One says yes, one no", None),
    ],
)  # fmt: skip
def test_yes_and_no(reply, meant):
    assert choices.any_yes_no(reply) == meant


def test_equal_texts_differ_in_case_articles_and_punctuation_only():
    assert choices.same("The Dog.", "a dog") == 1.0
    assert choices.same("dogs", "dog") == 0.0
    assert choices.same("two", "one", "Two!") == 1.0

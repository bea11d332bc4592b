"""What lmms-eval itself makes of replies; run by the Python that has it.

Reads JSON lines {"rule", "reply", ..} on standard input, prints one JSON value a line.
"""

import json
import os
import random
import sys

os.environ.setdefault("HF_HOME", "unused")

import nltk

nltk.download = lambda *_, **__: True  # offline; the rules below need none of its data

from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer  # noqa: E402
from lmms_eval.tasks.nextqa.utils import parse_multi_choice_response  # noqa: E402
from lmms_eval.tasks.tempcompass import utils as tempcompass  # noqa: E402

LETTERS = "ABCDE"


def surest_letter(reply, options):
    return extract_mcq_answer(reply, choices=list(LETTERS[: len(options)])) or None


def last_letter(reply, options):
    letters = list(LETTERS[: len(options)])
    guess = random.choice
    random.choice = lambda _: None  # where it guesses, there is no answer
    try:
        return parse_multi_choice_response(reply, letters, dict(zip(letters, options, strict=True)))
    finally:
        random.choice = guess


def rated(process, reply, question, answer):
    """The rating by rules, or None where a language model would be asked."""
    for name in ("get_llm_output", "get_eval_result"):
        setattr(tempcompass, name, lambda *_, **__: ("", -1))
    doc = {"question": question, "answer": answer, "video_id": "v", "dim": "action"}
    found = process(doc, [reply])["avg_accuracy"]
    return found["rating"] if found["match_success"] else None


def multi_choice(reply, question, answer):
    return rated(tempcompass.tempcompass_process_results_multi_choice, reply, question, answer)


def yes_no(reply, question, answer):
    return rated(tempcompass.tempcompass_process_results_yes_no, reply, question, answer)


def caption_matching(reply, question, answer):
    return rated(tempcompass.tempcompass_process_results_caption_matching, reply, question, answer)


RULES = {
    rule.__name__: rule
    for rule in (surest_letter, last_letter, multi_choice, yes_no, caption_matching)
}

for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(RULES[request.pop("rule")](**request)), flush=True)

"""Scores equal those computed by hand, benchmark by benchmark; intervals cover what they should."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.trajvit_jax.llm.benchmarks.conftest import (
    CAPTION,
    CAPTIONING,
    CHOICE,
    MLVU,
    MOVIE,
    NEXTQA,
    VIDEO_MME,
    csv,
)
from trajvit_jax.llm.benchmarks import intervals, registry
from trajvit_jax.llm.benchmarks.contract import Item
from trajvit_jax.llm.benchmarks.scores import Scored, score, with_failures


def scores(name, items, replies):
    benchmark = registry.find(name)
    scored = [
        Scored(item, item.videos[0], benchmark.marks(item, reply))
        for item, reply in zip(items, replies, strict=True)
    ]
    return score(benchmark, scored)


def test_video_mme(folder):
    rows = [
        VIDEO_MME | {"question_id": str(number), "videoID": f"v{number // 2}", "duration": length}
        for number, length in enumerate(["short", "short", "long", "long"])
    ]
    file = folder.put("a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    items = folder.read("videomme", file).items
    found = scores("videomme", items, ["D", "(A)", "The best answer is D.", "d"])
    # By lmms-eval's rule a small letter is none; in any form it is.
    assert found.metrics["accuracy"].value == 50.0
    assert found.metrics["accuracy_any_form"].value == 75.0
    assert found.metrics["unread"].value == 25.0
    by_duration = found.groups["duration"]
    assert by_duration["short"]["accuracy"].value == 50.0
    assert by_duration["long"]["accuracy_any_form"].value == 100.0
    assert (found.metrics["accuracy"].questions, found.metrics["accuracy"].videos) == (4, 2)


def test_nextqa_counts_a_fifth_where_lmms_eval_would_guess(folder):
    rows = [NEXTQA | {"qid": str(number)} for number in range(4)]
    items = folder.read("nextqa_mc", folder.put("a.csv", csv(*rows))).items
    found = scores("nextqa_mc", items, ["B", "B. river", "no idea", "A"])
    assert found.metrics["accuracy"].value == pytest.approx(100 * (1 + 1 + 0.2 + 0) / 4)
    assert found.metrics["accuracy_any_form"].value == 50.0
    assert found.groups["type"]["DL"]["unread"].value == 25.0


def test_mlvu_is_the_mean_over_tasks(folder):
    folder.put("3_ego.json", [MLVU] * 3)
    folder.put("4_count.json", [MLVU | {"question_type": "count"}])
    items = folder.read("mlvu", folder.path).items
    found = scores("mlvu", items, ["B) a pen", "A", "C", "B"])
    # ego 1 of 3, count 1 of 1: their mean, not 2 of 4.
    assert found.metrics["accuracy"].value == pytest.approx((100 / 3 + 100) / 2)
    assert found.groups["task"]["ego"]["accuracy"].value == pytest.approx(100 / 3)


def test_tempcompass_is_the_mean_over_questions_and_has_dimensions(folder):
    file = folder.put("m.json", {"1": {"action": [CHOICE] * 3}, "2": {"speed": [CHOICE]}})
    items = folder.read("tempcompass_multi_choice", file).items
    replies = ["B", "B. whatever", "passing", "A. dunking"]
    found = scores("tempcompass_multi_choice", items, replies)
    # A text without its letter is left to the judge, and wrong without one.
    assert found.metrics["accuracy"].value == 50.0
    assert found.metrics["unread"].value == 25.0
    assert found.metrics["accuracy_any_form"].value == 75.0
    assert found.groups["dimension"]["action"]["accuracy"].value == pytest.approx(200 / 3)
    assert found.groups["dimension"]["speed"]["accuracy"].value == 0.0


@pytest.mark.parametrize(
    ("reply", "accuracy", "any_form"),
    [
        ("Caption B: He passes.", 1, 1),
        ("He passes.", 1, 1),
        ("Caption B", 1, 1),
        ("B.", 1, 1),
        ("(B) He passes.", 1, 1),
        ("caption b", 0, 1),
        ("The answer is Caption B", 0, 1),
        ("Caption A", 0, 0),
        ("neither", 0, 0),
    ],
)
def test_caption_matching_by_hand(folder, marked, reply, accuracy, any_form):
    file = folder.put("c.json", {"1": {"action": [CAPTION]}})
    annotations = folder.read("tempcompass_caption_matching", file)
    (marks,) = marked("tempcompass_caption_matching", annotations, [reply])
    assert (marks["accuracy"], marks["accuracy_any_form"]) == (accuracy, any_form)


@pytest.mark.parametrize(
    ("reply", "named", "equal"),
    [
        ("A man is passing a ball.", 1, 0),
        ("Passing.", 1, 1),
        ("A man is dunking.", 0, 0),
        ("He runs.", 0, 0),
        ("dunking, then passing", 0, 0),
        # The model read the options as "Information B: ..", in another order than the judge's.
        ("B", 0, 0),
        ("The answer is B.", 0, 0),
        ("Information B: a man is dunking", 0, 0),
        ("(A) a man passing a ball", 1, 0),
    ],
)
def test_captions_name_the_right_option_by_its_text_alone(folder, marked, reply, named, equal):
    folder.put("multi-choice.json", {"1": {"action": [CHOICE]}})
    folder.put("captioning.json", {"1": {"action": [CAPTIONING]}})
    annotations = folder.read("tempcompass_captioning", folder.path)
    (marks,) = marked("tempcompass_captioning", annotations, [reply])
    assert marks == {"option_named": named, "exact_match": equal}


def test_open_answers_match_up_to_articles_and_punctuation(folder, marked):
    asked = [{"video_name": "a", "question": "what", "question_id": str(n)} for n in range(3)]
    answers = [{"answer": "a red car", "type": 8, "question_id": str(n)} for n in range(3)]
    files = folder.put("q.json", asked), folder.put("a.json", answers)
    marks = marked(
        "activitynet_qa",
        folder.read("activitynet_qa", *files),
        ["Red car.", "A car", "the red car"],
    )
    assert [mark["exact_match"] for mark in marks] == [1, 0, 1]


def test_moviechat_by_hand(folder):
    """Two films of two questions: what a judge says of each answer, and the means of that."""
    question = {"question": "Is it day?", "answer": "Yes."}
    for number in (1, 2):
        movie = MOVIE | {"info": {"video_path": f"{number}.mp4"}, "global": [question] * 2}
        folder.put(f"gt/{number}.json", movie)
    items = folder.read("moviechat_global", folder.path / "gt").items
    assert [item.id for item in items] == [f"{n}.mp4/global/{m}" for n in (1, 2) for m in (0, 1)]
    moviechat = registry.find("moviechat_global")
    replies = ["Yes", "It is day.", "No.", "yes!"]
    verdicts = [(True, 5), (True, 4.8), (False, 0), (True, 3)]
    assert moviechat.judging is not None
    scored = [
        Scored(
            item,
            item.videos[0],
            moviechat.marks(item, reply)
            | moviechat.judging.marks(item, {"correct": correct, "score": points}),
        )
        for item, reply, (correct, points) in zip(items, replies, verdicts, strict=True)
    ]
    found = score(moviechat, scored).metrics
    assert found["judge_accuracy"].value == 75.0
    assert found["judge_score"].value == pytest.approx((5 + 4.8 + 0 + 3) / 4)  # none is cut
    assert found["exact_match"].value == 50.0
    assert (found["judge_score"].questions, found["judge_score"].videos) == (4, 2)


def test_bootstrap_equals_a_slow_one_and_draws_whole_videos():
    rng = np.random.default_rng(0)
    videos = [f"v{number}" for number in rng.integers(12, size=80)]
    marks = rng.integers(2, size=80).astype(float)
    found = intervals.mean(marks.tolist(), videos)
    own = {name: marks[[one == name for one in videos]] for name in sorted(set(videos))}
    draws = [
        np.concatenate([own[name] for name in rng.choice(list(own), len(own))]).mean()
        for _ in range(4000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.value == marks.mean()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert (found.questions, found.videos) == (80, 12)
    assert found == intervals.mean(marks.tolist(), videos)  # the seed decides


def test_equal_marks_have_wilsons_interval():
    found = intervals.mean([1.0] * 20, [str(number // 2) for number in range(20)])
    # 10 of 10: 1 / (1 + z^2 / 10) with z = 1.96.
    assert (found.value, found.high) == (1.0, pytest.approx(1.0))
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / 10))
    low, high = intervals.wilson(0.3, 10)
    assert (low, high) == pytest.approx((0.10779, 0.60322), abs=1e-5)


def test_equal_scores_of_a_judge_are_a_part_of_the_highest():
    videos = [str(number) for number in range(10)]
    found = intervals.mean([1.0] * 10, videos, most=5.0)
    low, high = intervals.wilson(0.2, 10)
    assert (found.value, found.low, found.high) == (1.0, 5 * low, 5 * high)
    best = intervals.mean([5.0] * 10, videos, most=5.0)
    assert (best.high, best.low) == (pytest.approx(5.0), pytest.approx(5 / (1 + 1.959964**2 / 10)))


def test_failures_of_mlvu_count_in_their_task(folder):
    folder.put("3_ego.json", [MLVU] * 2)
    folder.put("4_count.json", [MLVU | {"question_type": "count"}])
    items = folder.read("mlvu", folder.path).items
    mlvu = registry.find("mlvu")
    scored = [Scored(one, "v", mlvu.marks(one, "B")) for one in items[:2]]
    found = with_failures(mlvu, scored, [(items[2], "w")], {"accuracy"})
    assert found["accuracy"].value == 50.0
    generation = registry.find("mlvu_generation")
    judged = [Scored(items[0], "v", {"judge_score": 8.0, "exact_match": 0.0})]
    found = with_failures(generation, judged, [(items[1], "w")], {"judge_score"})
    assert found["judge_score"].value == 5.0  # of 8 and 2, the lowest there is


def test_what_nobody_marked_is_wrong_among_failures():
    benchmark = registry.find("activitynet_qa")
    item = Item("q", ("v",), "", "", "")
    scored = [
        Scored(item, "v", {"exact_match": 1.0, "judge_accuracy": 1.0, "judge_score": 4.0}),
        Scored(item, "w", {"exact_match": 1.0}),  # the judge failed
    ]
    names = {"exact_match", "judge_accuracy", "judge_score"}
    found = with_failures(benchmark, scored, [(item, "x"), (item, "x")], names)
    assert {name: one.value for name, one in found.items()} == {
        "exact_match": 50.0, "judge_accuracy": 25.0, "judge_score": 1.0
    }  # fmt: skip
    found = with_failures(benchmark, [], [(item, "x")], {"exact_match"})
    assert (found["exact_match"].value, list(found)) == (0.0, ["exact_match"])


def test_one_video_has_no_interval_and_no_marks_no_mean():
    found = intervals.mean([1.0, 0.0], ["a", "a"])
    assert (found.value, found.low, found.high) == (0.5, None, None)
    with pytest.raises(ValueError, match="no marks"):
        intervals.mean([], [])
    with pytest.raises(ValueError, match="no group"):
        intervals.mean_of_means([])

"""The command: answers kept and resumed, videos missing, results, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trajvit_jax.llm.benchmarks.conftest import (
    CAPTIONING,
    CHOICE,
    MLVU,
    NEXTQA,
    NEXTQA_OPEN,
    csv,
)
from tests.trajvit_jax.llm.benchmarks.scripted import load
from trajvit_jax.llm import evaluate
from trajvit_jax.llm.benchmarks.lines_file import LinesFile

ROOT = Path(__file__).parents[4]
MODEL = "--model=tests.trajvit_jax.llm.benchmarks.scripted:load"
JUDGE = f"{sys.executable} {Path(__file__).parent / 'judge_program.py'}"


@pytest.fixture
def job(folder, monkeypatch):
    """A folder with annotations of four questions, three videos and a scripted model."""
    rows = [
        NEXTQA | {"video": name, "qid": str(number), "question": word}
        for number, (name, word) in enumerate(
            [("one", "first"), ("two", "second"), ("two", "third"), ("gone", "fourth")]
        )
    ]
    folder.put("test.csv", csv(*rows))
    folder.put("videos/deep/one.mp4")
    folder.put("videos/two.webm")
    monkeypatch.setenv("SCRIPT", str(folder.put("script.json", {"first": "B", "second": "A"})))
    monkeypatch.chdir(folder.path)
    return folder


def run(*arguments: str, benchmark: str = "nextqa_mc", files: str = "test.csv") -> int:
    common = [f"--benchmark={benchmark}", f"--annotations={files}", "--videos=videos", MODEL]
    return evaluate.main([*common, "--json=r.json", *arguments])


def result(name: str = "r.json"):
    return json.loads(Path(name).read_text())


def calls() -> list[str]:
    return Path("script.log").read_text().splitlines()


def test_a_result_says_what_it_is_of(job, capsys):
    assert run("--frames=32") == 0
    found = result()
    # first right, second wrong, third read as nothing.
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(100 * (1 + 0 + 0.2) / 3)
    assert (found["count"], found["of"], found["frames"]) == (3, 4, 32)
    assert found["missing"] == [
        {"id": "gone_3", "file": "gone", "kind": "missing", "reason": "its video is not there"}
    ]
    assert found["with_failures"] == found["metrics"]  # nobody failed to answer it
    assert found["notes"]["missing"].startswith("3 of 4 questions asked")
    assert found["notes"]["missing"].endswith("no number to compare")
    assert found["protocol"] == "videoqa"
    assert found["groups"]["type"]["DL"]["accuracy"]["videos"] == 2
    assert "--frames=32" in found["command"]
    assert set(calls()) == {"one.mp4 32 1024", "two.webm 32 1024"}
    out = capsys.readouterr().out
    assert "3 of 4 questions; 32 frames" in out
    assert "left out: gone_3: its video is not there" in out
    assert "37.0, 29.5" in out


def test_a_limit_is_noted_and_what_is_beyond_it_is_not_missing(job):
    assert run("--limit=3") == 0
    found = result()
    assert (found["count"], found["of"], found["missing"]) == (3, 4, [])
    assert found["notes"] == {"limit": "only the first 3 questions were asked"}


def test_what_is_answered_is_not_asked_again(job):
    assert run("--batch=1") == 0
    first = result()
    assert run("--batch=1") == 0
    assert len(calls()) == 3
    # A line cut off by a kill is dropped, and its question asked again.
    path = Path("r.answers.jsonl")
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    assert run() == 0
    assert len(calls()) == 4
    assert result()["metrics"] == first["metrics"]
    assert path.read_bytes() == content
    assert run("--overwrite") == 0
    assert len(calls()) == 7


def test_answers_of_other_settings_are_refused(job, capsys):
    assert run() == 0
    assert run("--frames=64") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "r.answers.jsonl has results of frames=16, not 64" in error
    assert "--overwrite" in error
    assert run("--frames=64", "--answers=other.jsonl") == 0


def test_a_broken_video_stops_nothing_and_is_named(job, capsys):
    rows = [NEXTQA | {"qid": str(number), "question": "first"} for number in range(3)]
    rows[1] |= {"video": "broken"}
    job.put("b.csv", csv(*rows))
    for name in ("257", "broken"):
        job.put(f"videos/{name}.mp4")
    assert run(files="b.csv") == 1
    found = result()
    assert (found["count"], found["metrics"]["accuracy"]["value"]) == (2, 100.0)
    (gone,) = found["missing"]
    assert (gone["id"], gone["kind"]) == ("broken_1", "failed")
    assert "cannot be decoded" in gone["reason"]
    assert "1 of 3 questions could not be answered" in capsys.readouterr().err
    asked = calls()
    assert run(files="b.csv") == 1  # not asked again,
    assert calls() == asked
    (job.path / "videos/broken.mp4").rename(job.path / "videos/other.mp4")
    job.put("videos/x/broken.txt")
    assert run("--retry_failed", files="b.csv") == 0  # but told as missing once it is gone
    assert result()["missing"][0]["reason"] == "its video is not there"


def test_what_the_model_had_no_place_for_is_noted(job):
    rows = [NEXTQA | {"qid": str(i), "video": v} for i, v in enumerate(["one", "crowded"])]
    job.put("b.csv", csv(*rows))
    job.put("videos/crowded.mp4")
    assert run(files="b.csv") == 0
    assert result()["notes"]["dropped"].startswith(
        "5 trajectories were not read, the smallest of 1"
    )
    assert run(files="b.csv") == 0  # also of answers that were kept
    assert "dropped" in result()["notes"]


def test_failures_count_as_wrong_in_a_second_number(job, capsys):
    videos = ["one", "one", "broken", "long", "long"]
    rows = [
        NEXTQA | {"qid": str(number), "video": video, "question": "first"}
        for number, video in enumerate(videos)
    ]
    job.put("b.csv", csv(*rows))
    for name in ("broken", "long"):
        job.put(f"videos/{name}.mp4")
    assert run("--batch=2", files="b.csv") == 1
    found = result()
    assert found["metrics"]["accuracy"]["value"] == 100.0
    assert found["with_failures"]["accuracy"]["value"] == pytest.approx(40.0)
    assert found["with_failures"]["accuracy"]["questions"] == 5
    assert found["with_failures"]["unread"]["value"] == pytest.approx(60.0)
    assert "3 questions (ContextOverflow 2, ValueError 1)" in found["notes"]["failed"]
    table = capsys.readouterr().out.splitlines()
    place = next(n for n, line in enumerate(table) if line.startswith("accuracy "))
    assert " ".join(table[place + 1].split()) == "with failures 40.00 0.0 to 100.0 5 3"


def test_a_decoder_that_says_not_there_has_failed_all_the_same(job):
    rows = [NEXTQA | {"qid": str(number), "question": "first"} for number in range(2)]
    rows[1] |= {"video": "broken, which is not there"}
    job.put("b.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    for name in ("257", "broken, which is not there"):
        job.put(f"videos/{name}.mp4")
    assert run(files="b.jsonl") == 1
    assert [one["kind"] for one in result()["missing"]] == ["failed"]


@pytest.mark.parametrize(
    "changed",
    [
        {"question": "What comes first?"},
        {"candidates": ["a sponge", "a pen", "the first apple", "a banana"]},
        {"video": "two.webm"},
    ],
)
def test_a_question_that_changed_is_asked_again(job, changed):
    """Benchmarks that number their questions have the same ids in other files, too."""
    row = MLVU | {"video": "one.mp4", "question_type": "findNeedle"}
    job.put("script.json", {"": "A"})
    job.put("2_needle.json", [row])
    assert run(benchmark="mlvu", files="2_needle.json") == 0
    assert result()["metrics"]["accuracy"]["value"] == 0.0
    job.put("script.json", {"": "B"})
    job.put("2_needle.json", [row | changed])
    for _ in range(2):
        assert run(benchmark="mlvu", files="2_needle.json") == 0
        assert len(calls()) == 2
        assert result()["metrics"]["accuracy"]["value"] == 100.0


def test_answers_stop_where_those_of_lmms_eval_do(job):
    said = "B\n\nA. ASSISTANT: C"
    job.put("script.json", {"first": said})
    assert run() == 0
    lines = [json.loads(line) for line in Path("r.answers.jsonl").read_text().splitlines()]
    assert lines[0]["stop"] == ["\n\n"]
    assert {one["id"]: one["prediction"] for one in lines[1:]}["one_0"] == "B"
    assert result()["settings"]["stop"] == ["\n\n"]
    stops = {name: one.stop for name, one in evaluate.registry.BENCHMARKS.items()}
    assert stops.pop("activitynet_qa") == ("ASSISTANT:",)
    assert stops.pop("mlvu_generation") == ()  # not one of its tasks
    assert set(stops.values()) == {("\n\n",)}


def test_batch_and_devices_are_those_of_the_model(job, monkeypatch):
    load, batches = evaluate.load_answerer, []

    def recorded(name, *, batch, devices):
        batches.append((batch, devices))
        return load(name, batch=batch)

    monkeypatch.setattr(evaluate, "load_answerer", recorded)
    assert run("--batch=3", "--devices=2") == 0
    assert batches == [(3, 2)]


def test_a_mean_over_some_of_the_tasks_says_so(job):
    job.put("2_needle.json", [MLVU | {"video": "one.mp4", "question_type": "findNeedle"}])
    assert run(benchmark="mlvu", files="2_needle.json") == 0
    assert "over 1 of 7 tasks" in result()["notes"]["mean"]


def test_what_the_judge_failed_at_can_be_asked_again_and_is_not_wrong(job, monkeypatch):
    choices = {str(n): {"action": [CHOICE]} for n in range(3)}
    for number in range(3):
        job.put(f"videos/{number}.mp4")
    job.put("multi-choice.json", choices)
    job.put("script.json", {"What": "so B it is"})
    monkeypatch.setenv("JUDGE_ERROR", "1")
    again = [f"--judge={JUDGE}"]
    where = {"benchmark": "tempcompass_multi_choice", "files": "multi-choice.json"}
    assert run(*again, **where) == 0
    found = result()
    # Two were judged right; the third has no verdict, which is no wrong answer.
    assert found["metrics"]["accuracy"] | {"low": 0, "high": 0} == {
        "value": 100.0, "low": 0, "high": 0, "questions": 2, "videos": 2
    }  # fmt: skip
    assert found["notes"]["unjudged"].startswith("1 answers")
    # Where all are asked alike it is one.
    assert found["with_failures"]["accuracy"]["value"] == pytest.approx(200 / 3)
    assert found["with_failures"]["accuracy"]["questions"] == 3
    monkeypatch.setenv("JUDGE_ERROR", "")
    assert run(*again, **where) == 0
    assert result()["metrics"]["accuracy"]["questions"] == 2  # not asked again unless told to
    assert run(*again, "--retry_failed", **where) == 0
    assert result()["metrics"]["accuracy"]["questions"] == 3
    assert "unjudged" not in result()["notes"]
    # With another right answer to the same question, what the judge said is of no use.
    turned = CHOICE | {"answer": "A. dunking"}
    job.put("multi-choice.json", {str(n): {"action": [turned]} for n in range(3)})
    assert run(*again, **where) == 0
    assert result()["metrics"]["accuracy"]["value"] == 0.0


def test_a_choice_is_judged_anew_where_another_one_is_right(job):
    """The request is the same: it does not tell the right one."""
    job.put("multi-choice.json", {"1": {"action": [CHOICE]}})
    job.put("captioning.json", {"1": {"action": [CAPTIONING]}})
    job.put("videos/1.mp4")
    job.put("script.json", {"": "He is passing it."})
    where = {"benchmark": "tempcompass_captioning", "files": "captioning.json"}
    judged = ["--annotations=multi-choice.json", f"--judge={JUDGE}"]
    assert run(*judged, **where) == 0
    assert result()["metrics"]["judge_accuracy"]["value"] == 100.0
    turned = CHOICE | {"answer": "A. dunking"}
    job.put("multi-choice.json", {"1": {"action": [turned]}})
    assert run(*judged, **where) == 0
    assert result()["metrics"]["judge_accuracy"]["value"] == 0.0


def test_where_nothing_works_it_ends_at_once(job, capsys):
    rows = [NEXTQA | {"qid": str(n), "video": "broken", "question": "x"} for n in range(30)]
    job.put("b.csv", csv(*rows))
    job.put("videos/broken.mp4")
    assert run("--batch=5", files="b.csv") == 2
    assert "the first 5 questions all failed" in capsys.readouterr().err
    assert not Path("r.json").exists()


@pytest.mark.parametrize(("count", "broken"), [(1, 0), (9, 0), (9, 4)])
def test_where_every_prompt_is_too_long_the_worst_is_the_result(job, capsys, count, broken):
    names = ["long"] * (count - broken) + ["broken"] * broken
    rows = [NEXTQA | {"qid": str(n), "video": name} for n, name in enumerate(names)]
    job.put("b.csv", csv(*rows))
    for name in ("long", "broken"):
        job.put(f"videos/{name}.mp4")
    assert run("--batch=4", files="b.csv") == 1
    found = result()
    assert (found["metrics"], found["groups"], found["count"]) == ({}, {}, 0)
    worst = {name: one["value"] for name, one in found["with_failures"].items()}
    assert worst == {"accuracy": 0.0, "accuracy_any_form": 0.0, "unread": 100.0}
    assert found["with_failures"]["accuracy"]["questions"] == count
    out, error = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    place = next(n for n, line in enumerate(lines) if line.startswith("accuracy "))
    assert lines[place] == "accuracy - - 0 0 37.0, 29.5"
    assert lines[place + 1].startswith("with failures 0.00")
    assert f"{count} of {count} questions could not be answered" in error


def test_a_judge_can_come_later_and_is_asked_once(job, capsys):
    row = {"video_name": "one", "question": "what", "question_id": "q"}
    asked = [row | {"question_id": f"q{n}", "question": word} for n, word in
             enumerate(["is first", "is second", "is third"])]  # fmt: skip
    answers = [{"question_id": f"q{n}", "answer": "b", "type": 8} for n in range(3)]
    job.put("qa/test_q.json", asked)
    job.put("qa/test_a.json", answers)
    assert run(benchmark="activitynet_qa", files="qa") == 0
    found = result()
    assert list(found["metrics"]) == ["exact_match"]
    assert "what rules alone can tell" in found["notes"]["judge"]
    assert run(f"--judge={JUDGE}", benchmark="activitynet_qa", files="qa") == 0
    found = result()
    assert found["metrics"]["judge_accuracy"]["value"] == pytest.approx(100 / 3)
    assert found["metrics"]["judge_score"]["value"] == pytest.approx((5 + 1 + 1) / 3)
    assert found["metrics"]["exact_match"]["value"] == pytest.approx(100 / 3)
    assert (found["judge"], len(calls())) == (JUDGE, 3)
    before = Path("r.answers.judged.jsonl").read_text()
    assert run(f"--judge={JUDGE}", benchmark="activitynet_qa", files="qa") == 0
    assert Path("r.answers.judged.jsonl").read_text() == before
    faulty = f"--judge={JUDGE} --fault=score"
    assert run(faulty, benchmark="activitynet_qa", files="qa") == 2
    error = capsys.readouterr().err
    assert "r.answers.judged.jsonl has results of judge=" in error and "--rejudge" in error
    assert "--overwrite" not in error
    for judge in ([], ["--judge=no-such-program"]):  # nothing that could take their place
        assert run("--rejudge", *judge, benchmark="activitynet_qa", files="qa") == 2
        assert Path("r.answers.judged.jsonl").read_text() == before
    assert run(faulty, "--rejudge", benchmark="activitynet_qa", files="qa") == 2
    assert "'q0': its 'score' is 7" in capsys.readouterr().err
    assert len(calls()) == 3  # the answers are kept


@pytest.mark.parametrize("mistyped", ["no-such-program", "false", f"{sys.executable} no_such.py"])
def test_a_mistyped_judge_does_not_lock_its_file(job, capsys, mistyped):
    asked = {"video_name": "one", "question": "is first", "question_id": "q"}
    job.put("qa/test_q.json", [asked])
    job.put("qa/test_a.json", [{"question_id": "q", "answer": "b", "type": 8}])
    where = {"benchmark": "activitynet_qa", "files": "qa"}
    assert run(f"--judge={mistyped}", **where) == 2
    assert run(f"--judge={JUDGE}", **where) == 0
    assert result()["metrics"]["judge_accuracy"]["value"] == 100.0
    assert len(calls()) == 1


def test_a_model_that_was_moved_has_its_answers(job, monkeypatch, capsys):
    """Its files tell it, not the way it is written."""
    (job.path / "model").mkdir()
    (job.path / "model" / "settings.json").write_text("{}")
    monkeypatch.setattr(evaluate, "load_answerer", lambda name, **options: load())
    assert run("--model=model") == 0
    assert run("--model=model/") == 0
    (job.path / "model").rename(job.path / "moved")
    assert run("--model=moved") == 0
    assert len(calls()) == 3 and result()["model"] == "moved"
    (job.path / "moved" / "settings.json").write_text("{ }")
    assert run("--model=moved") == 2
    assert "has results of checkpoint=" in capsys.readouterr().err
    assert run(MODEL) == 2


def test_answers_that_a_judge_skips_are_counted(job, capsys):
    rows = [{"video_name": "one", "question": "is first", "question_id": f"q{n}"} for n in range(3)]
    job.put("qa/test_q.json", rows)
    answers = [{"question_id": f"q{n}", "answer": "b", "type": 8} for n in range(3)]
    job.put("qa/test_a.json", answers)
    judge = f"--judge={JUDGE} --fault=error"
    assert run(judge, benchmark="activitynet_qa", files="qa") == 0
    found = result()
    assert found["notes"]["unjudged"].startswith("1 answers, such as 'q1', are wrong in")
    assert found["metrics"]["judge_accuracy"]["questions"] == 2
    assert found["metrics"]["judge_score"]["value"] == 5.0
    assert found["with_failures"]["judge_score"]["value"] == pytest.approx((5 + 0 + 5) / 3)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  with failures") for line in lines) == 2  # not of exact_match


def test_wups_needs_a_wordnet_and_says_so(job, wordnet_folder):
    job.put("oe.csv", csv(NEXTQA_OPEN | {"video": "one", "question": "first", "answer": "b"}))
    assert run(benchmark="nextqa_oe", files="oe.csv") == 0
    assert list(result()["metrics"]) == ["exact_match"]
    assert "no WUPS" in result()["notes"]["wordnet"]
    assert run(f"--wordnet={wordnet_folder}", benchmark="nextqa_oe", files="oe.csv") == 0
    assert result()["metrics"]["wups"]["value"] == 100.0
    assert "wordnet" not in result()["notes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark=nextqa"], "there is no benchmark 'nextqa' (did you mean 'nextqa_"),
        (["--frames=-1"], "--frames=-1 must be at least 0"),
        (["--batch=0"], "--batch=0 must be at least 1"),
        (["--videos=nowhere"], "nowhere is no folder; --videos names"),
        (["--judge=cat"], "nextqa_mc is scored by rules alone"),
        (["--wordnet=x"], "--wordnet is for nextqa_oe"),
        (["--model=nowhere"], "neither a folder that exists nor package.module:function"),
        (["--model=json:nothing"], "cannot be loaded"),
        (
            ["--model=tests.trajvit_jax.llm.benchmarks.scripted:broken"],
            "has no method answer()",
        ),
    ],
)
def test_bad_input_is_one_line(job, capsys, arguments, message):
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error.splitlines()[-1]
    assert not Path("r.json").exists()


def test_videos_that_are_nowhere_or_twice(job, capsys):
    job.put("none.csv", csv(NEXTQA))
    assert run(files="none.csv") == 2
    assert "--videos has no video of any question" in capsys.readouterr().err
    job.put("videos/other/one.mp4")
    assert run() == 2
    assert "may be" in capsys.readouterr().err


def test_missing_options_are_named(capsys):
    assert evaluate.main([]) == 2
    assert "--benchmark is missing (--list shows" in capsys.readouterr().err


def test_the_list_and_the_help_name_all_benchmarks(capsys):
    assert evaluate.main(["--list"]) == 0
    listed = capsys.readouterr().out
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    helped = capsys.readouterr().out
    for name in evaluate.registry.BENCHMARKS:
        assert name in listed
        assert name in helped


def test_an_interrupt_keeps_the_answers(job):
    command = [sys.executable, "-m", "trajvit_jax.llm.evaluate", "--benchmark=nextqa_mc"]
    command += ["--annotations=test.csv", "--videos=videos", MODEL, "--json=r.json", "--batch=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "INTERRUPT_AFTER": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        130,
        "interrupted; run the same command again to go on",
    )
    assert not Path("r.json").exists()
    assert len(Path("r.answers.jsonl").read_text().splitlines()) == 1
    done = subprocess.run(command, env=environment | {"INTERRUPT_AFTER": ""})
    assert done.returncode == 0
    assert result()["count"] == 3


def test_benchmarks_load_no_array_framework():
    script = (
        "import sys, trajvit_jax.llm.evaluate, trajvit_jax.llm.serve\n"
        "print([name for name in ('jax', 'torch', 'tensorflow', 'pyarrow') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_file_of_something_else_is_not_emptied(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"important": 1}\n')
    with pytest.raises(ValueError, match=r"mine\.jsonl"):
        LinesFile(path, {"frames": 16}, option="--answers")
    assert path.read_text() == '{"important": 1}\n'


def test_one_process_has_a_file_at_a_time_and_others_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    with LinesFile(path, {"frames": 16}, option="--answers") as file:
        file.add({"id": "a", "prediction": "half a character \ud800, a line\u2028and\nmore"})
        with pytest.raises(BlockingIOError, match="in use by another process"):
            LinesFile(path, {"frames": 16}, option="--answers")
    with LinesFile(path, {"frames": 16}, option="--answers") as file:
        assert list(file.lines) == ["a"]
    path.write_text("no JSON\n")
    with pytest.raises(ValueError, match="line 1 is no result"):
        LinesFile(path, {"frames": 16}, option="--answers")

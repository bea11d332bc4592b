"""A VideoLLM of ours, tiny and of random numbers, behind the commands that ask models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trajvit_jax.llm.benchmarks.conftest import NEXTQA, csv
from trajvit_jax.llm import evaluate, videollm
from trajvit_jax.llm.answering import AnswerSettings

ROOT = Path(__file__).parents[4]
MOST = 4


@pytest.fixture(scope="module")
def model(videollm_folder):
    return videollm_folder("trajvit")


def test_served_answers_are_the_model_s_and_its_output_is_clean(model, world_clips, tmp_path):
    """JAX, bars and logs say nothing between the replies; what fails does so alone."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    good = {"text": "What is it?", "videos": [str(world_clips[0])]}
    bad = {"text": "What is it?", "videos": [str(broken)]}
    long = {"text": "why " * 2000, "videos": [str(world_clips[1])]}
    requests = [{"questions": [good, bad]}, {"questions": [long]}, {"questions": [good, good]}]
    done = subprocess.run(
        [sys.executable, "-m", "trajvit_jax.llm.serve", f"--model={model}", "--frames=0",
         "--batch=2", f"--most_tokens={MOST}"],
        input="".join(f"{json.dumps(request)}\n" for request in requests),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    ready, first, second, third = map(json.loads, done.stdout.splitlines())
    answer = videollm.load(model).answer(
        world_clips[0], "What is it?", AnswerSettings(most_tokens=MOST)
    )
    assert ready == {"ready": True}
    assert first["answers"] == [answer, ""] and "broken.mp4" in first["failed"]["1"]
    assert list(first["failed"]) == ["1"]
    assert second["answers"] == [""]
    assert "ContextOverflow" in second["failed"]["0"] and "holds 1024" in second["failed"]["0"]
    assert third == {"answers": [answer, answer]}


def test_a_benchmark_asks_it_and_goes_on_after_a_broken_video(
    model, world_clips, folder, monkeypatch
):
    questions = [NEXTQA | {"video": name, "qid": str(number)} for number, name in enumerate("abc")]
    folder.put("test.csv", csv(*questions))
    folder.put("videos/b.mp4", "no video")
    for name, clip in (("a", world_clips[0]), ("c", world_clips[1])):
        shutil.copyfile(clip, folder.path / "videos" / f"{name}.mp4")
    monkeypatch.chdir(folder.path)
    command = ["--benchmark=nextqa_mc", "--annotations=test.csv", "--videos=videos"]
    command += [f"--model={model}", "--frames=8", "--batch=2", "--json=r.json"]
    command.append(f"--most_tokens={MOST}")
    assert evaluate.main([*command, "--limit=2"]) != 0  # half of them failed
    found = json.loads(Path("r.json").read_text())
    assert found["count"] == 1 and found["frames"] == 8 and found["checkpoint"]
    (missing,) = (one for one in found["missing"] if one["kind"] == "failed")
    assert missing["id"].startswith("b") and "VideoError" in missing["reason"]
    lines = [json.loads(line) for line in Path("r.answers.jsonl").read_text().splitlines()]
    assert sum(bool(line.get("prediction")) for line in lines) == 1
    # All three: the two that were asked are not asked again.
    evaluate.main(command)
    assert json.loads(Path("r.json").read_text())["count"] == 2
    again = [json.loads(line) for line in Path("r.answers.jsonl").read_text().splitlines()]
    assert again[: len(lines)] == lines and len(again) == len(lines) + 1

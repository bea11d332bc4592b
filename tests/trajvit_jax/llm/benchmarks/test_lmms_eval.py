"""The plugin in lmms-eval itself, which has an environment of its own: see docs/VIDEOQA.md."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from trajvit_jax.llm import videollm
from trajvit_jax.llm.answering import AnswerSettings

ROOT = Path(__file__).parents[4]
QUESTION = "Does it get\nA. brighter\nB. darker"
TASK = """\
task: two_clips
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/questions.jsonl
  cache_dir: {folder}
test_split: test
output_type: generate_until
doc_to_visual: !function two_clips.visual
doc_to_text: !function two_clips.text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 16
  do_sample: false
process_results: !function two_clips.results
metric_list:
  - metric: accuracy
    aggregation: mean
    higher_is_better: true
"""
FUNCTIONS = """\
from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer


def visual(doc):
    return [doc["video"]]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def results(doc, results):
    return {"accuracy": float(extract_mcq_answer(results[0], ["A", "B"]) == doc["answer"])}
"""


@pytest.fixture(scope="module")
def lmms_python() -> str:
    """The Python of lmms-eval's environment, with the plugin."""
    python = Path(os.environ.get("TRAJVIT_LMMS_EVAL_PYTHON", ""))
    if not python.is_file():
        pytest.skip("TRAJVIT_LMMS_EVAL_PYTHON names no Python with lmms-eval: make test-lmms")
    return str(python.absolute())  # it is started elsewhere


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, one that gets brighter and one that gets darker, and a broken one, as a task."""
    folder = tmp_path_factory.mktemp("task")
    lines = []
    for answer, levels in (("A", range(20, 220, 20)), ("B", range(220, 20, -20))):
        path = folder / f"{answer}.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 8, (64, 48))
        for level in levels:
            writer.write(np.full((48, 64, 3), level, np.uint8))
        writer.release()
        lines.append({"video": str(path), "question": QUESTION, "answer": answer})
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video")
    lines.append({"video": str(broken), "question": QUESTION, "answer": "A"})
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    (folder / "two_clips.yaml").write_text(TASK.format(folder=folder))
    (folder / "two_clips.py").write_text(FUNCTIONS)
    return folder


@dataclasses.dataclass(frozen=True)
class Told:
    """What the harness found.

    Attributes:
      accuracy: of the task.
      answers: to its questions, in their order.
      said: on both of its outputs.
    """

    accuracy: float
    answers: list[str]
    said: str


def run_harness(python: str, task: Path, folder: Path, *, model: str) -> Told:
    """Runs the task with a model, as a person would."""
    arguments = f"python={sys.executable},model={model},frames=4,cwd={ROOT},most_failed=0.5"
    done = subprocess.run(
        [python, "-m", "lmms_eval", "--model=trajvit", f"--model_args={arguments}",
         "--tasks=two_clips", f"--include_path={task}", "--batch_size=2", "--log_samples",
         f"--output_path={folder / 'out'}"],
        cwd=folder,
        env=os.environ
        | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (results,) = (folder / "out").rglob("*_results.json")
    (samples,) = (folder / "out").rglob("*_samples_two_clips.jsonl")
    told = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda one: one["doc_id"])
    accuracy = json.loads(results.read_text())["results"]["two_clips"]["accuracy,none"]
    answers = [one["filtered_resps"] for one in told]
    return Told(accuracy, answers, done.stdout + done.stderr)


@pytest.mark.slow
def test_the_harness_calls_the_model(lmms_python, clips, tmp_path):
    model = "tests.trajvit_jax.llm.benchmarks.brightness:load"
    told = run_harness(lmms_python, clips, tmp_path, model=model)
    assert told.accuracy == pytest.approx(2 / 3)
    assert told.answers == ["A", "B", ""]
    assert "two_clips 2 has no answer: " in told.said
    assert "1 of 3 questions failed; their answers are empty" in told.said


@pytest.mark.slow
def test_the_harness_calls_a_videollm_of_ours(lmms_python, clips, videollm_folder, tmp_path):
    """Eyes, connector and Llama of random numbers: the harness has their very answers."""
    folder = videollm_folder("trajvit")
    told = run_harness(lmms_python, clips, tmp_path, model=str(folder))
    own, settings = videollm.load(folder), AnswerSettings(frames=4, most_tokens=16)
    expected = [own.answer(clips / f"{name}.mp4", QUESTION, settings) for name in "AB"]
    assert told.answers == [*expected, ""] and expected[0] != expected[1]

"""The plugin without lmms-eval: stand-ins for its modules, and for the process that answers."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

PLUGIN = Path(__file__).parents[4] / "plugins" / "lmms_eval"
# Stands for trajvit_jax.llm.serve: notes what it is asked, answers with the question's text, and
# fails at those that say so.
SERVE = """\
import json, sys

print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    with open("requests.jsonl", "a") as file:
        file.write(line)
    texts = [one["text"] for one in json.loads(line)["questions"]]
    if "die" in texts:
        sys.exit(7)
    if "refuse" in texts:
        print(json.dumps({"error": "no such setting"}), flush=True)
        continue
    failed = {str(place): "broken" for place, text in enumerate(texts) if "broken" in text}
    answers = ["" if "broken" in text else text.upper() for text in texts]
    print(json.dumps({"answers": answers, "failed": failed}), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Request:
    """What lmms-eval hands over of a question: its text, settings, visuals, number, task, split."""

    args: tuple[Any, ...]


class Model:
    """lmms-eval's base class."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


def module(name: str, **content: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(content)
    return made


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's module."""
    told: list[str] = []
    stand_ins = [
        module("lmms_eval"),
        module("lmms_eval.api"),
        module("lmms_eval.api.instance", Instance=Request),
        module("lmms_eval.api.model", lmms=Model),
        module("lmms_eval.models"),
        module("lmms_eval.models.registry_v2", ModelManifest=dict),
        module("loguru", logger=types.SimpleNamespace(warning=told.append, error=told.append)),
    ]
    for one in stand_ins:
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.syspath_prepend(str(PLUGIN))
    for name in ("lmms_eval_trajvit", "trajvit_process"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = importlib.import_module("lmms_eval_trajvit")
    found.told = told
    yield found
    for name in ("lmms_eval_trajvit", "trajvit_process"):
        sys.modules.pop(name, None)


@pytest.fixture
def answering(plugin, folder) -> Callable[..., Any]:
    """Makes the model, before a stand-in for our process; `asked` reads what that was sent."""

    def make(serve: str = SERVE, **arguments: Any) -> Any:
        for name in ("trajvit_jax/__init__.py", "trajvit_jax/llm/__init__.py"):
            folder.put(name)
        folder.put("trajvit_jax/llm/serve.py", serve)
        model = plugin.TrajViT(sys.executable, "m", cwd=str(folder.path), **arguments)
        made.append(model)
        return model

    made: list[Any] = []
    yield make
    for model in made:
        model._process.close()
        model._images.cleanup()


def ask(model: Any, *texts: str, visuals: Any = (), settings: Any = None) -> list[str]:
    """Answers to questions; `settings` is one for all, or one for each."""
    every = settings if isinstance(settings, list) else [settings or {}] * len(texts)
    model.task_dict = {"task": {"test": list(texts)}}
    return model.generate_until(
        [
            Request((text, own, lambda _: visuals, number, "task", "test"))
            for number, (text, own) in enumerate(zip(texts, every, strict=True))
        ]
    )


def asked(folder: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "requests.jsonl").read_text().splitlines()]


def test_up_to_a_twentieth_may_fail(answering, plugin):
    texts = [f"q{number}" for number in range(19)]
    model = answering(batch_size=4)
    answers = ask(model, *texts, "broken")
    assert answers == [*(text.upper() for text in texts), ""]
    assert plugin.told == [
        "task 19 has no answer: broken",
        "1 of 20 questions failed; their answers are empty",
    ]
    with pytest.raises(SystemExit, match=r"2 of 20 questions .* more than most_failed=0\.05"):
        ask(model, *texts[:-1], "broken", "broken")


def test_more_may_fail_where_it_is_allowed(answering, plugin):
    model = answering(most_failed="0.5")
    assert ask(model, "q", "broken") == ["Q", ""]
    with pytest.raises(SystemExit, match="cure what is told above"):
        ask(model, "broken", "q", "broken")
    with pytest.raises(SystemExit, match=r"most_failed=1\.5 must be a part"):
        answering(most_failed=1.5)


def test_where_nothing_works_it_ends_at_once(answering, folder):
    with pytest.raises(SystemExit, match="the first 5 questions all failed"):
        ask(answering(most_failed=1), *["broken"] * 9)
    assert len(asked(folder)) == 5


def test_relative_videos_are_found_by_a_process_that_starts_elsewhere(
    answering, folder, monkeypatch, tmp_path_factory
):
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    ask(answering(), "q", visuals=["deep/a.mp4"])
    (request,) = asked(folder)
    assert request["questions"] == [{"text": "q", "videos": [str(here / "deep/a.mp4")]}]


def test_a_wrong_folder_or_python_is_named(plugin, folder):
    with pytest.raises(SystemExit, match=r"cwd=nowhere is no folder; the model argument `cwd`"):
        plugin.TrajViT(sys.executable, "m", cwd="nowhere")
    with pytest.raises(SystemExit, match=r"no-python cannot be started .*`python`"):
        plugin.TrajViT("no-python", "m", cwd=str(folder.path))
    with pytest.raises(SystemExit, match=r"unknown model arguments \['frame'\]"):
        plugin.TrajViT(sys.executable, "m", frame=16)


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        ("print('Loading wheels ..')", "printed 'Loading wheels ..', which is no reply"),
        ("print(3)", "printed '3', which is no reply"),
        ("print('{}')", "did not say that it is ready, but {}"),
        ("raise SystemExit(3)", "ended with exit code 3; what it said is above"),
    ],
)
def test_a_process_that_does_not_get_ready_is_told_of(answering, serve, message):
    with pytest.raises(SystemExit) as error:
        answering(serve)
    assert message in str(error.value)


def test_a_process_that_ends_or_refuses_ends_the_run(answering):
    with pytest.raises(SystemExit, match="trajvit_jax cannot answer: no such setting"):
        ask(answering(), "refuse")
    model = answering(batch_size=2)
    with pytest.raises(SystemExit, match="ended with exit code 7"):
        ask(model, "q", "die")
    with pytest.raises(SystemExit, match="ended with exit code 7"):
        ask(model, "q")


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {}),
        ({"max_new_tokens": 16, "do_sample": False, "temperature": 0}, {"most_tokens": 16}),
        ({"do_sample": True, "temperature": 0}, {}),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, {}),
        ({"do_sample": True, "temperature": 0.7}, {"temperature": 0.7, "top_p": 1.0}),
        (
            {"do_sample": True, "temperature": "0.7", "top_p": 0.9},
            {"temperature": 0.7, "top_p": 0.9},
        ),
        ({"until": "ASSISTANT:"}, {"stop": ["ASSISTANT:"]}),
        ({"until": ["\n\n", "", None]}, {"stop": ["\n\n"]}),
        ({"until": [], "num_beams": 1}, {}),
    ],
)
def test_settings_of_a_task_are_those_of_an_answer(plugin, given, settings):
    assert plugin._settings(given) == settings


def test_questions_of_one_request_are_of_one_kind(answering, folder):
    short, long = {"max_new_tokens": 4}, {"max_new_tokens": 8}
    kinds = [short, short, short, long, short, short]
    texts = [f"q{number}" for number in range(6)]
    answers = ask(answering(batch_size="2"), *texts, settings=kinds)
    assert answers == [text.upper() for text in texts]
    requests = asked(folder)
    assert [[one["text"] for one in request["questions"]] for request in requests] == [
        ["q0", "q1"],
        ["q2"],
        ["q3"],
        ["q4", "q5"],
    ]
    assert [request["most_tokens"] for request in requests] == [4, 4, 8, 4]


@pytest.fixture
def clip(tmp_path) -> Path:
    """Ten frames at 8 a second."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 8, (64, 48))
    for level in range(20, 220, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("frame", "second"), [(4, 0.5), (0, 0.125)])
def test_a_breakpoint_is_a_second_to_stop_at(plugin, answering, folder, clip, frame, second):
    assert plugin._rate(str(clip)) == 8.0
    ask(answering(), "q", visuals=[{"video_path": str(clip), "timestep": frame}])
    (request,) = asked(folder)
    assert request["questions"] == [{"text": "q", "videos": [str(clip)], "stop": second}]


def test_images_are_kept_as_files_and_a_question_may_have_none(answering, folder):
    model = answering(batch_size=3)
    pictures = [Image.new("L", (4, 3), color=level) for level in (10, 200)]
    ask(model, "q", visuals=pictures)
    ask(model, "q", visuals=pictures[1])
    ask(model, "q", visuals=None)
    first, second, third = (request["questions"][0]["videos"] for request in asked(folder))
    read = [np.asarray(Image.open(path)) for path in (*first, *second)]
    assert [one.shape for one in read] == [(3, 4, 3)] * 3
    assert [one.max() for one in read] == [10, 200, 200]
    assert len({*first, *second}) == 3 and third == []


def test_what_it_offers_lmms_eval(plugin, answering):
    assert plugin.manifest() == {
        "model_id": "trajvit",
        "simple_class_path": "lmms_eval_trajvit.TrajViT",
    }
    for method in ("loglikelihood", "generate_until_multi_round"):
        with pytest.raises(NotImplementedError, match="trajvit answers generate_until tasks"):
            getattr(answering(), method)([])

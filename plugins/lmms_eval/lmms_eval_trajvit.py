"""lmms-eval's model `trajvit`: questions go to a process of trajvit_jax, answers come back.

    lmms-eval --model trajvit --tasks videomme --batch_size 8 \
        --model_args python=/path/to/trajvit_jax/.venv/bin/python,model=/path/to/videollm,frames=16
"""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from loguru import logger
from PIL import Image
from tqdm import tqdm
from trajvit_process import Process

_HOPELESS = 5  # questions that fail while none was ever answered: nothing works


@contextlib.contextmanager
def _ends_the_run() -> Iterator[None]:
    """Makes errors such that end lmms-eval: of an Exception it prints the traceback and exits 0."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise SystemExit(f"error: trajvit: {error}") from error


class TrajViT(lmms):
    """A VideoLLM of trajvit_jax, which runs in a process and an environment of its own."""

    @_ends_the_run()
    def __init__(
        self,
        python: str,
        model: str,
        frames: int | str = 16,
        batch_size: int | str = 1,
        devices: int | str = 1,
        cwd: str | None = None,
        most_failed: float | str = 0.05,
        **unused: Any,
    ) -> None:
        """Starts the process.

        Args:
          python: of the environment that has trajvit_jax.
          model: as --model of trajvit_jax.llm.serve.
          frames: that it reads of each video; 0 = as it was trained.
          batch_size: questions that are sent and computed at once.
          devices: of this host that share the model.
          cwd: folder to start in: a clone of trajvit_jax that is not installed.
          most_failed: part of the questions that may fail; with more there is no result.
          unused: what lmms-eval passes to all models.

        Raises:
          SystemExit: an argument makes no sense, or the process cannot be started.
        """
        super().__init__()
        known = {"device", "max_batch_size"}
        if unknown := set(unused) - known:
            raise ValueError(f"unknown model arguments {sorted(unknown)}")
        self._most_failed = float(most_failed)
        if not 0 <= self._most_failed <= 1:
            raise ValueError(f"most_failed={most_failed} must be a part of the questions, 0 to 1")
        self._batch = max(1, int(batch_size))
        arguments = [f"--model={model}", f"--frames={frames}", f"--batch={self._batch}"]
        arguments.append(f"--devices={devices}")
        self._process = Process(python, arguments, cwd)
        atexit.register(self._process.close)
        self._images = tempfile.TemporaryDirectory(prefix="trajvit-")

    @_ends_the_run()
    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers to questions about videos and images.

        A question that cannot be answered (a broken video, a prompt too long) is told, and its
        answer is empty. Most tasks count that as wrong, but NExT-QA's multiple choice draws an
        option at random where it reads no letter: a fifth of these is right. So with more than
        `most_failed` of them there is no result.

        Raises:
          SystemExit: the first questions all failed, too many did, or the process ended.
        """
        answers: list[str] = []
        failed = 0
        with tqdm(total=len(requests), desc="trajvit", unit="question") as bar:
            while len(answers) < len(requests):
                part = self._alike(requests, len(answers))
                settings = _settings(part[0].args[1])
                found, reasons = self._process.ask([self._question(one) for one in part], settings)
                for place, reason in reasons.items():
                    _, _, _, number, task, _ = part[place].args
                    logger.warning(f"{task} {number} has no answer: {reason}")
                answers += found
                failed += len(reasons)
                bar.update(len(part))
                if failed == len(answers) >= min(_HOPELESS, len(requests)):
                    raise RuntimeError(f"the first {failed} questions all failed; see above")
        if failed:
            logger.error(f"{failed} of {len(answers)} questions failed; their answers are empty")
        check_failed(failed, len(answers), self._most_failed)
        return answers

    def _alike(self, requests: list[Instance], start: int) -> list[Instance]:
        """The next requests that want the same kind of answer, a batch at most."""
        kind = requests[start].args[1]
        end = start + 1
        while end < min(start + self._batch, len(requests)) and requests[end].args[1] == kind:
            end += 1
        return requests[start:end]

    def _question(self, request: Instance) -> dict[str, Any]:
        text, _, to_visual, number, task, split = request.args
        visuals = to_visual(self.task_dict[task][split][number]) or []
        question: dict[str, Any] = {"text": text, "videos": []}
        for visual in visuals if isinstance(visuals, list | tuple) else [visuals]:
            if isinstance(visual, dict):  # MovieChat's breakpoints: the frame to stop at
                frames = max(visual["timestep"], 1)  # at frame 0 there is one frame to see
                question["stop"] = frames / _rate(visual["video_path"])
                visual = visual["video_path"]
            if isinstance(visual, Image.Image):
                visual = self._saved(visual)
            # Absolute: the process may have started in another folder.
            question["videos"].append(str(Path(visual).absolute()))
        return question

    def _saved(self, image: Image.Image) -> str:
        folder = Path(self._images.name)
        path = folder / f"{len(list(folder.iterdir()))}.png"
        image.convert("RGB").save(path)
        return str(path)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered: tasks of videos generate."""
        raise NotImplementedError("trajvit answers generate_until tasks, not loglikelihood")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not offered."""
        raise NotImplementedError("trajvit answers generate_until tasks, not of several rounds")


def check_failed(failed: int, of: int, most: float) -> None:
    """Looks whether a run has enough answers to be scored.

    Args:
      failed: questions without an answer.
      of: how many were asked.
      most: part of them that may fail.

    Raises:
      RuntimeError: it has not.
    """
    if failed > most * of:
        raise RuntimeError(
            f"{failed} of {of} questions could not be answered, more than most_failed={most:g} of "
            "them; cure what is told above, or allow more by the model argument most_failed"
        )


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """What a task says of its answers, as trajvit_jax.llm.serve takes it."""
    settings: dict[str, Any] = {}
    if "max_new_tokens" in given:
        settings["most_tokens"] = int(given["max_new_tokens"])
    if given.get("do_sample") and given.get("temperature"):
        settings["temperature"] = float(given["temperature"])
        settings["top_p"] = float(given.get("top_p") or 1.0)
    until = given.get("until") or []
    if stop := [one for one in ([until] if isinstance(until, str) else until) if one]:
        settings["stop"] = stop
    return settings


def _rate(path: str) -> float:
    import av  # of lmms-eval

    with av.open(path) as container:
        return float(container.streams.video[0].average_rate)


def manifest() -> ModelManifest:
    """Tells lmms-eval where the model is."""
    return ModelManifest(model_id="trajvit", simple_class_path="lmms_eval_trajvit.TrajViT")

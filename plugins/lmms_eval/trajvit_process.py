"""A process of `python -m trajvit_jax.llm.serve`, in the Python that has trajvit_jax."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any


class Process:
    """The process; it ends with this one, whose end closes its input."""

    def __init__(self, python: str, arguments: list[str], cwd: str | None = None) -> None:
        """Starts it and waits until the model is loaded.

        Args:
          python: of the environment that has trajvit_jax.
          arguments: of trajvit_jax.llm.serve.
          cwd: folder to start in: a clone of trajvit_jax that is not installed.

        Raises:
          RuntimeError: it cannot be started, or the model cannot be loaded.
        """
        if cwd is not None and not Path(cwd).is_dir():
            raise RuntimeError(
                f"cwd={cwd} is no folder; the model argument `cwd` names a clone of trajvit_jax, "
                "and is left out where that is installed"
            )
        command = [python, "-m", "trajvit_jax.llm.serve", *arguments]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd, encoding="utf-8"
            )
        except OSError as error:
            raise RuntimeError(
                f"{python} cannot be started ({error.strerror}); the model argument `python` "
                "names the Python that has trajvit_jax"
            ) from error
        try:
            reply = self._read()
            if "ready" not in reply:
                raise RuntimeError(f"{' '.join(command)} did not say that it is ready, but {reply}")
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def ask(
        self, questions: list[dict[str, Any]], settings: dict[str, Any]
    ) -> tuple[list[str], dict[int, str]]:
        """One answer a question, "" where there is none, and why there is none by position.

        Raises:
          RuntimeError: the request cannot be read, or the process ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"questions": questions} | settings) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # reading says how it ended
        reply = self._read()
        if "answers" not in reply:
            raise RuntimeError(f"trajvit_jax cannot answer: {reply.get('error', reply)}")
        failed = {int(place): reason for place, reason in reply.get("failed", {}).items()}
        return reply["answers"], failed

    def close(self) -> None:
        """Ends it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # it has ended before it read all
                    pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"trajvit_jax.llm.serve ended with exit code {self._process.wait()}; what it "
                "said is above"
            )
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise RuntimeError(
                f"trajvit_jax.llm.serve printed {line.strip()!r}, which is no reply; does "
                "something that Python loads at its start print to standard output?"
            )
        return reply

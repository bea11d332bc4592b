"""What was asked wrong ends with 2, as argparse does, and what failed with 1, in every command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokenization import exit_codes
from tokenization.engines.protocol import EngineError
from tokenization.folder_lock import FolderInUse
from tokenization.weights import DownloadFailed, WeightsError
from trajvit_jax.config import ConfigError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("--frames=0"), 2),
        (FileNotFoundError("no such file"), 2),
        (FileExistsError("is there already"), 2),
        (NotADirectoryError("is a file"), 2),
        (PermissionError("read-only"), 1),
        (OSError("no space left"), 1),
        (FolderInUse("in use"), 1),
        (DownloadFailed("broke off"), 1),
        (WeightsError("another file than it must be"), 2),
        (EngineError("workers cannot start"), 1),
        (FloatingPointError("the loss is nan"), 1),
    ],
)
def test_the_code_says_whose_mistake_it_was(error, code, capsys):
    assert exit_codes.tell(error) == code
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(("file", "told"), [("a.py", "./a.py"), ("b/a.py", "b/a.py")])
def test_whose_help_to_read(capsys, file, told):
    """Pydoc takes a name without a folder for that of a module."""
    assert exit_codes.tell(ConfigError("a.py: no", file)) == 2
    hint = f"See --help, and `python -m pydoc {told}` for its arguments."
    assert capsys.readouterr().err == f"error: a.py: no\n{hint}\n"


def test_who_tells_it(capsys):
    exit_codes.tell(ValueError("no"), by="tokenization.explore")
    assert capsys.readouterr().err == "tokenization.explore: error: no\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--inptu=a"], "Unknown command line flag 'inptu'. Did you mean: input ?"),
        ([], "--input must have a value other than None"),
        (["--input=a.mp4", "--output=out", "b.mp4"], "quote patterns"),
        (
            ["--input=a.mp4", "--output=out", "--config=configs/tokenization/clasical.py"],
            "did you mean 'configs/tokenization/classical.py'?",
        ),
    ],
)
def test_extraction_that_is_asked_wrong(arguments, reason, tmp_path):
    line = [sys.executable, "-m", "tokenization.extract", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert reason in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("program", "arguments", "option"),
    [
        ("extract", ["--input=", "--output=out"], "--input="),
        ("import_official", ["--input=a.mp4", "--output="], "--output="),
        ("export_official", ["--records= ", "--output=out"], "--records="),
        ("explore", ["", "--output=out.html"], "DIR_OR_VIDEO"),
        ("explore", ["a.mp4", "--output="], "--output"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(program, arguments, option, tmp_path):
    """As of a shell variable that is not set."""
    line = [sys.executable, "-m", f"tokenization.{program}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert any(option in one and "is empty; is a shell variable not set?" in one for one in told)
    assert list(tmp_path.iterdir()) == []

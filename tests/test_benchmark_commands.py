"""What the benchmarks' commands share: options, exit codes, numbers in files, and their table."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from benchmarks import cost_model, demo_retrieval, never_lost, tokenization_quality
from benchmarks.parts import command
from tokenization import interrupts

ROOT = Path(__file__).parent.parent
COMMANDS = {
    path.stem: path.read_text("utf-8")
    for path in (ROOT / "benchmarks").glob("*.py")
    if "__main__" in path.read_text("utf-8")
}


@pytest.fixture(autouse=True)
def signals(monkeypatch):
    monkeypatch.setattr(interrupts, "install", lambda *_, **__: None)


def code_of(main):
    with pytest.raises(SystemExit) as ended:
        command.run_command(main)
    return ended.value.code


def test_the_page_lists_every_benchmark():
    page = (ROOT / "docs/BENCHMARKS.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS) and len(COMMANDS) > 20


@pytest.mark.parametrize("name", COMMANDS)
def test_every_benchmark_has_the_options_and_exit_codes_of_all(name):
    source = COMMANDS[name]
    assert re.search(r"\bparser_of\(\s*__file__, __doc__, ", source.replace("\n        ", " "))
    assert re.search(r'^if __name__ == "__main__":\n    run_command\(main\b.*\)$', source, re.M)
    assert "argparse.ArgumentParser(" not in source and "sys.exit(" not in source
    assert re.search(r"(options|args)\.json\b|\bfinish\(", source)  # --json is not forgotten


def test_options_have_two_spellings_and_no_short_ones(capsys, tmp_path):
    parser = command.parser_of("benchmarks/some.py", "What it does.", quick="a tiny one")
    parser.add_argument("--no_world", action="store_true")
    assert parser.prog == "python -m benchmarks.some"
    for spelling in ("--no_world", "--no-world"):
        assert parser.parse_args([spelling, "--quick"]).no_world
    os.mkfifo(tmp_path / "pipe")  # a file in its place would end what it is for
    nowhere = (tmp_path, f"{__file__}/numbers.json", tmp_path / "pipe")
    for wrong in ("--no", "--qui", *(f"--json={path}" for path in nowhere)):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([wrong])
        assert ended.value.code == 2
    assert capsys.readouterr().err.count("no file can be made at") == 3


def test_numbers_are_written_into_a_folder_that_was_not_there(tmp_path):
    command.write_json(None, {"a": 1})
    file = tmp_path / "new/numbers.json"
    command.write_json(file, {"a": 1})
    assert json.loads(file.read_text()) == {"a": 1}


def test_bounds_that_do_not_hold_end_with_1(capsys):
    assert command.tell_bounds({"fast": True}) == 0
    assert command.tell_bounds({"fast": True, "small": False}) == 1
    assert capsys.readouterr().out.splitlines() == ["holds: fast"] * 2 + ["FAILS: small"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no such model"), 2),
        (FileNotFoundError("clips"), 2),
        (OSError(errno.ENOSPC, "full"), 1),
        (FloatingPointError("loss"), 1),
    ],
)
def test_a_command_ends_with_2_where_it_was_asked_wrong_and_with_1_where_it_failed(
    capsys, error, code
):
    def main():
        raise error

    assert code_of(main) == code and capsys.readouterr().err == f"error: {error}\n"
    assert (code_of(lambda: 0), code_of(lambda: 1)) == (0, 1)


@pytest.mark.parametrize("resumes", [False, True])
def test_an_interrupted_command_says_whether_it_goes_on(monkeypatch, resumes):
    def main():
        raise interrupts.Preempted

    def leave(message, code):
        raise SystemExit(f"{message}: {code}")

    monkeypatch.setattr(interrupts, "leave", leave)
    with pytest.raises(SystemExit, match=r"interrupted.*: 75") as ended:
        command.run_command(main, resumes=resumes)
    assert ("run the same command again" in str(ended.value)) == resumes


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (cost_model.main, ["--quick", "--bandwidth=0"], "must be a number above 0, got '0'"),
        (cost_model.main, ["--utilization", "1.5"], "must be above 0 and at most 1"),
        (demo_retrieval.main, ["--seeds=0"], "must be a whole number of at least 1, got '0'"),
        (never_lost.main, ["--steps=20"], "at least 22 are needed"),
        (never_lost.main, ["--kills=many"], "got 'many'"),
        (
            tokenization_quality.main,
            ["--tokenizer=configs/tokenization/clasical.py"],
            "did you mean 'configs/tokenization/classical.py'",
        ),
    ],
)
def test_wrong_arguments_are_told_in_a_line(monkeypatch, capsys, main, arguments, said):
    monkeypatch.chdir(ROOT)
    assert code_of(lambda: main(arguments)) == 2
    assert said in capsys.readouterr().err

"""Options in either spelling: of parsers, of absl's flags, and of every command."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from tokenization.arguments import ArgumentParser, as_known, flag_options

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parser():
    parser = ArgumentParser(prog="python -m x", description="One\n  two.")
    parser.add_argument("--max_bad", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--keep-all", action=argparse.BooleanOptionalAction)
    parser.add_argument("rest", nargs="*")
    return parser


@pytest.mark.parametrize(
    "typed",
    [
        ["--max_bad=0.5", "--top-p", "1", "--no-keep-all"],
        ["--max-bad", "0.5", "--top_p=1", "--no_keep_all"],
    ],
)
def test_both_spellings_are_one_option(parser, typed):
    found = parser.parse_args([*typed, "--", "--keep_all"])
    assert (found.max_bad, found.top_p, found.keep_all) == (0.5, 1, False)
    assert found.rest == ["--keep_all"]


@pytest.mark.parametrize("typed", ["--max", "--top=1", "--max_worse=1"])
def test_what_is_no_option_is_told_as_it_was_typed(parser, typed, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args([typed])
    assert f"unrecognized arguments: {typed}" in capsys.readouterr().err


def test_help_has_one_spelling_and_the_description_as_it_is(parser):
    text = parser.format_help()
    assert "One\n  two." in text and "--max_bad" in text and "--max-bad" not in text


def test_commands_below_a_command_read_alike():
    parser = ArgumentParser()
    parser.add_subparsers(dest="name").add_parser("one").add_argument("--top_p")
    assert parser.parse_args(["one", "--top-p=3"]).top_p == "3"


def test_flags_and_their_negations():
    known = flag_options(["retry_quarantined", "input"])
    typed = ["x-y.py", "--retry-quarantined", "--noretry-quarantined", "--input=a-b", "--c.a-b=1"]
    read = ["x-y.py", "--retry_quarantined", "--noretry_quarantined", "--input=a-b", "--c.a-b=1"]
    assert as_known(typed, known) == read


@pytest.mark.parametrize("package", ["trajvit_jax", "tokenization", "benchmarks", "notebooks"])
def test_every_command_reads_its_options_alike(package):
    """With this parser, or with absl's flags through `as_known`."""
    for path in (ROOT / package).rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name != "arguments.py":
            assert "= argparse.ArgumentParser(" not in text, path
        if re.search(r"\bflags\.FLAGS\((?!as_known)", text):
            raise AssertionError(path)

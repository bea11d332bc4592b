"""Options of the protocols' commands. No JAX here: they are read before that is imported."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import typing
from typing import Any, TypeVar

from tokenization import exit_codes
from tokenization.arguments import ArgumentParser
from trajvit_jax import config as configs
from trajvit_jax.config import to_settings
from trajvit_jax.evals.settings import CommonSettings

S = TypeVar("S", bound=CommonSettings)


def check(name: str, about: str | None, kind: type[CommonSettings]) -> None:
    """Ends the program at --help, and where options are wrong: at once, for JAX takes seconds.

    Args are those of `parser_of`.
    """
    try:
        settings_of(name, kind, parser_of(name, about, kind).parse_args())
    except (ValueError, OSError) as error:
        sys.exit(exit_codes.tell(error))


def parser_of(name: str, about: str | None, kind: type[CommonSettings]) -> ArgumentParser:
    """The options of a protocol's command: those of all commands, and one for each setting.

    Args:
      name: of the protocol's module.
      about: what `--help` says.
      kind: of its settings, whose docstring explains each.
    """
    parser = ArgumentParser(
        prog=f"python -m trajvit_jax.evals.{name}",
        description=about,
    )
    parser.add_argument(
        "--workdir",
        required=True,
        help="a run of trajvit_jax.main, or a folder of trajvit_jax.convert",
    )
    parser.add_argument("--records", required=True, help="folder of tokenization.extract")
    parser.add_argument(
        "--config",
        help="of configs/eval: how the paper evaluates on a dataset; options change it",
    )
    parser.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
    parser.add_argument("--vocabulary", help="vocab.txt, where the workdir has none")
    parser.add_argument(
        "--missing",
        help="MANIFEST.missing.txt: entries that were never there, to be counted; the extraction "
        "notes it with the records, if it lies beside its --input",
    )
    parser.add_argument(
        "--json",
        help="file of the result; WORKDIR/evals/PROTOCOL-DATASET-SPLIT-FRAMES-STEP-HASH.json by "
        "default",
    )
    add_settings(parser, kind)
    return parser


def add_settings(parser: ArgumentParser, kind: type[CommonSettings]) -> None:
    """Adds an option for each of a protocol's settings."""
    group = parser.add_argument_group("settings")
    described = _described(kind)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        flag = f"--{field.name.replace('_', '-')}"
        help_text = f"{described[field.name]} ({field.default!r})".replace("%", "%%")
        if hints[field.name] is bool:
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=None,
                help=help_text,
            )
            continue
        group.add_argument(
            flag,
            type=hints[field.name],
            metavar=hints[field.name].__name__.upper(),
            help=help_text,
        )


def _described(kind: type) -> dict[str, str]:
    """What docstrings say of the fields of a class and of those that it is made from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        name = ""
        for line in inspect.cleandoc(one.__doc__ or "").splitlines():
            field = re.match(r"  (\w+): (.+)", line)
            if field:
                name, found[field[1]] = field[1], field[2]
            elif name and line.startswith("    "):
                found[name] += f" {line.strip()}"
            else:
                name = ""
    return {name: text.removesuffix(".") for name, text in found.items()}


def settings_of(name: str, kind: type[S], options: argparse.Namespace) -> S:
    """What the config says, and what the options change of it.

    Raises:
      ValueError: a config of another protocol, or a setting that does not exist.
    """
    values: dict[str, Any] = {}
    if options.config:
        config = dict(configs.load(options.config))
        own = config.pop("protocol", None)
        if own != name:
            what = f"is for python -m trajvit_jax.evals.{own}" if own else "names no protocol"
            raise ValueError(f"{options.config} {what}, not for {name}; see configs/eval")
        values |= config
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(kind)}
    values |= {field: value for field, value in given.items() if value is not None}
    return to_settings(kind, values)

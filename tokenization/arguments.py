"""How all commands read their options: in either spelling, and none of them abbreviated.

Standard library only: commands tell what is wrong with their options before they load anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container, Iterable, Sequence
from typing import Any


class ArgumentParser(argparse.ArgumentParser):
    """Python's, which also takes `--like-this` for `--like_this`, and the reverse.

    An abbreviation is refused: it would mean another option, or none, once one is added. The
    description is shown as it is written.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As Python's, of options in either spelling."""
        if args is None:
            args = sys.argv[1:]
        return super().parse_known_args(as_known(args, self._option_string_actions), namespace)


def as_known(arguments: Iterable[str], options: Container[str]) -> list[str]:
    """A command line with its options as they are known.

    Args:
      arguments: as they were typed; behind `--` they stay as they are.
      options: those that are known, with their dashes.
    """
    found: list[str] = []
    arguments = iter(arguments)
    for text in arguments:
        if text == "--":
            return [*found, text, *arguments]
        name, equals, value = text.partition("=")
        if name.startswith("--") and name not in options:
            plain = name[2:].replace("_", "-")
            for spelling in (f"--{plain}", f"--{plain.replace('-', '_')}"):
                if spelling in options:
                    name = spelling
        found.append(name + equals + value)
    return found


def flag_options(names: Iterable[str]) -> frozenset[str]:
    """The options of absl's flags, as `as_known` wants them: each name, and its negation."""
    return frozenset(f"--{no}{name}" for name in names for no in ("", "no"))

"""Experiment configs: Python files with `get_config(arg)`, locked, read into dataclasses.

A config file imports only this module and the models' settings. The packages' defaults are
dataclasses; a config names what it changes, and `to_settings` refuses a key that does not exist.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import importlib.util
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import ml_collections

T = TypeVar("T")

_COMMAND = re.compile(r"python -m ([\w.]+)(.*)")


class ConfigError(ValueError):
    """A config that cannot be used as it was named; commands end by naming its help.

    Attributes:
      file: whose docstring lists the arguments.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message, file)
        self.file = file

    def __str__(self) -> str:
        return self.args[0]


def nearest(name: str, names: typing.Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one, else all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def check_known(chosen: ml_collections.ConfigDict, **known: typing.Collection[str]) -> None:
    """Raises ValueError for an argument of a config that is none of its known values.

    Args:
      chosen: the arguments, as `parse_arg` gives them.
      **known: the values by argument.
    """
    for name, values in known.items():
        value: Any = chosen[name]
        if value not in values:
            raise ValueError(f"unknown {name} {value!r}: {nearest(value, values)}")


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads the `key=value,flag` text behind `config.py:` against typed defaults.

    Values take the type of their default; a bare key means True.

    Raises:
      ValueError: an unknown key (with the nearest name), one that is given twice, or no value or
        one of another type.
    """
    parsed, seen = dict(defaults), set[str]()
    for key, given, text in _items(arg):
        if key not in defaults:
            known = nearest(key, defaults) if defaults else "this config takes none"
            raise ValueError(f"unknown config argument {key!r}: {known}")
        if key in seen:
            raise ValueError(f"config argument {key!r} is given twice")
        seen.add(key)
        default = defaults[key]
        if not given:
            if not isinstance(default, bool):
                like = f"{key}={'...' if default is None else default}"
                raise ValueError(f"config argument {key!r} has no value; write it like {like}")
            text = "True"
        if default is None or isinstance(default, str):
            parsed[key] = text
            continue
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            raise ValueError(
                f"config argument {key}={text!r} must be {type(default).__name__}, "
                f"like its default {default!r}"
            )
        parsed[key] = value
    return ml_collections.ConfigDict(parsed)


def named_in(arg: str | None) -> frozenset[str]:
    """The keys that such a text names, whatever their values."""
    return frozenset(key for key, _, _ in _items(arg))


def _items(arg: str | None) -> Iterator[tuple[str, str, str]]:
    """Key, '=' or nothing, and text of each item."""
    for item in filter(None, (arg or "").split(",")):
        key, given, text = item.partition("=")
        yield key.strip(), given, text


def file_of(path: str) -> Path:
    """The file that `file.py[:arg]` names.

    Raises:
      FileNotFoundError: it is no Python file; the message names the nearest one.
    """
    name = path.partition(":")[0]
    file = Path(name)
    if file.is_file() and file.suffix == ".py":
        return file
    what = "does not exist" if not file.exists() else "is a folder" if file.is_dir() else ""
    beside = file if file.is_dir() else file.parent
    known = {str(one) for one in (*beside.glob("*.py"), *Path("configs").rglob("*.py"))}
    known -= {"setup.py"}
    hint = nearest(name, known) if known else f"there is none in {Path.cwd()}"
    raise FileNotFoundError(f"config file {name!r} {what or 'is no Python file'}; {hint}")


def load(path: str) -> ml_collections.ConfigDict:
    """Runs `file.py[:arg]` and returns its config, locked.

    Raises:
      FileNotFoundError: no such file; the message names the nearest.
      ConfigError: an argument or a value that it refuses.
      ValueError: a file without `get_config`, or that is not Python.
    """
    name, _, arg = path.partition(":")
    file = file_of(path)
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{name} line {error.lineno}: {error.msg}") from error
    if not hasattr(module, "get_config"):
        raise ValueError(f"{name} has no get_config(arg) function")
    try:
        return module.get_config(arg or None).lock()
    except ValueError as error:
        raise ConfigError(f"{name}: {error}", name) from error


def command_of(file: Path) -> str | None:
    """The module that a config's docstring gives the config to, or that it names first."""
    with contextlib.suppress(SyntaxError, ValueError):
        text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        named = _COMMAND.findall(text.replace("\\\n", " "))
        given = [module for module, rest in named if f"/{file.name}" in rest]
        return next(iter([*given, *(module for module, _ in named)]), None)
    return None


def read(kind: type[T], path: str, command: str) -> T:
    """The settings that `file.py[:arg]` names for a command.

    Args:
      kind: their dataclass.
      path: of the config, with its arguments.
      command: the module that wants them, to tell configs of other commands.

    Raises:
      FileNotFoundError, ValueError: as `load`.
      ConfigError: a config of another command, or settings that `kind` refuses, named with the
        argument that is at fault.
    """
    config, file = load(path), file_of(path)
    try:
        return to_settings(kind, config)
    except ValueError as error:
        other = command_of(file)
        if other is None or other == command:
            raise ConfigError(f"{_at_fault(kind, path)}: {error}", str(file)) from error
    known = [
        str(one) for one in sorted(Path("configs").rglob("*.py")) if command_of(one) == command
    ]
    takes = f"takes {', '.join(known)}" if known else "takes another kind"
    raise ConfigError(
        f"{file} is a config of python -m {other}; python -m {command} {takes}",
        known[0] if known else str(file),
    )


def _at_fault(kind: type[Any], path: str) -> str:
    """The file with the one argument that makes it fail, or with all of them."""
    name, _, arg = path.partition(":")
    for item in filter(None, arg.split(",")):
        try:
            to_settings(kind, load(f"{name}:{item}"))
        except ValueError:
            return f"{name}:{item}"
    return path


def to_settings(
    kind: type[T],
    config: Mapping[str, Any] | ml_collections.ConfigDict,
    where: str = "config",
) -> T:
    """Builds the settings dataclass `kind` from a mapping, recursively.

    Raises:
      ValueError: a key that `kind` has not, named with its path and the nearest field.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in config.items():
        if key not in fields:
            raise ValueError(f"{where}.{key} is not a setting: {nearest(key, fields)}")
        # An optional group of settings: the group, where there is one.
        groups = [part for part in typing.get_args(hints[key]) if dataclasses.is_dataclass(part)]
        hint = groups[0] if groups else hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(
            value, (Mapping, ml_collections.ConfigDict)
        ):
            value = to_settings(typing.cast(type, hint), value, f"{where}.{key}")
        elif isinstance(value, (list, tuple)):
            value = tuple(
                to_settings(typing.cast(type, hint), item, f"{where}.{key}[{number}]")
                if groups and isinstance(item, (Mapping, ml_collections.ConfigDict))
                else item
                for number, item in enumerate(value)
            )
        values[key] = value
    return kind(**values)


def require_positive(settings: Any, *names: str) -> None:
    """Checks settings that count something.

    Raises:
      ValueError: one of the named fields is not a whole number of at least 1.
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{type(settings).__name__}.{name} must be a whole number >= 1, got {value!r}"
            )


def changed(settings: Any) -> Any:
    """The fields that differ from the defaults of their dataclass, nested, as JSON can hold them.

    A setting that is added later, with a default that changes nothing, leaves this as it is.
    """
    if dataclasses.is_dataclass(settings):
        return {
            field.name: changed(getattr(settings, field.name))
            for field in dataclasses.fields(settings)
            if getattr(settings, field.name) != _default(field)
        }
    if isinstance(settings, (tuple, list)):
        return [changed(one) for one in settings]
    return settings


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two nested settings: `name: old, now new` of each leaf."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(old.keys() | new.keys())
        parts = [differences(old.get(k), new.get(k), f"{name}.{k}".lstrip(".")) for k in keys]
        return [change for part in parts for change in part]
    return [] if old == new else [f"{name}: {old!r}, now {new!r}"]

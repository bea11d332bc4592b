"""Experiment configs: what is refused, and that the message helps."""

from __future__ import annotations

import dataclasses

import ml_collections
import pytest

from trajvit_jax import config

DEFAULTS = {"steps": 10, "rate": 0.1, "name": "base", "flip": False, "path": None}


def test_defaults_stand_without_an_argument():
    for nothing in (None, ""):
        assert config.parse_arg(nothing, **DEFAULTS).to_dict() == DEFAULTS


@pytest.mark.parametrize(
    ("arg", "key", "value"),
    [
        ("steps=3", "steps", 3),
        ("rate=3", "rate", 3.0),
        ("rate=1e-4", "rate", 1e-4),
        ("name=12", "name", "12"),
        ("flip", "flip", True),
        ("flip=False", "flip", False),
        ("path=a/b=c", "path", "a/b=c"),
        (" steps =3", "steps", 3),
    ],
)
def test_values_take_the_type_of_their_default(arg, key, value):
    got = config.parse_arg(arg, **DEFAULTS)
    assert got[key] == value and type(got[key]) is type(value)
    others = {name: default for name, default in DEFAULTS.items() if name != key}
    assert {name: got[name] for name in others} == others


def test_several_values():
    got = config.parse_arg("steps=3,flip,,name=tiny", **DEFAULTS)
    assert (got.steps, got.flip, got.name) == (3, True, "tiny")


@pytest.mark.parametrize("arg", ["steps=2.5", "steps=many", "flip=1", "rate=fast"])
def test_values_of_another_type(arg):
    key = arg.partition("=")[0]
    with pytest.raises(ValueError, match=f"{key}=.* must be {type(DEFAULTS[key]).__name__}"):
        config.parse_arg(arg, **DEFAULTS)


def test_unknown_values_of_arguments_name_the_nearest():
    chosen = config.parse_arg("model=vitt", model="vit", size="L")
    config.check_known(chosen, size={"L": 1})
    with pytest.raises(ValueError, match="unknown model 'vitt': did you mean 'vit'"):
        config.check_known(chosen, size=("S", "L"), model=("vit", "rlt"))


def test_unknown_keys_name_the_nearest():
    with pytest.raises(ValueError, match=r"'stepps': did you mean 'steps'\?"):
        config.parse_arg("stepps=3", **DEFAULTS)
    with pytest.raises(ValueError, match="known: flip, name, path, rate, steps"):
        config.parse_arg("zzz=3", **DEFAULTS)
    with pytest.raises(ValueError, match="unknown config argument 'zzz': this config takes none"):
        config.parse_arg("zzz=3")


@pytest.mark.parametrize(("arg", "like"), [("steps", "steps=10"), ("name", "name=base")])
def test_only_a_flag_stands_without_a_value(arg, like):
    with pytest.raises(ValueError, match=f"'{arg}' has no value; write it like {like}$"):
        config.parse_arg(arg, **DEFAULTS)


def test_no_argument_is_given_twice():
    with pytest.raises(ValueError, match="'steps' is given twice"):
        config.parse_arg("steps=3,flip,steps=4", **DEFAULTS)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(
        "from trajvit_jax.config import parse_arg\n"
        "def get_config(arg=None):\n"
        "    return parse_arg(arg, steps=10, size=0.5)\n"
    )
    return path


def test_load_runs_the_file_with_its_argument(config_file):
    assert config.load(str(config_file)).steps == 10
    assert config.load(f"{config_file}:steps=3,size=2").to_dict() == {"steps": 3, "size": 2.0}


def test_loaded_configs_are_locked(config_file):
    loaded = config.load(str(config_file))
    with pytest.raises(AttributeError, match="locked"):
        loaded.stepps = 3
    loaded.steps = 3


def test_load_does_not_write_into_the_process(config_file):
    config.load(f"{config_file}:steps=3")
    assert config.load(str(config_file)).steps == 10


def test_load_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.py"):
        config.load(str(tmp_path / "none.py:steps=3"))
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(ValueError, match=r"empty\.py has no get_config"):
        config.load(str(empty))


def test_errors_of_arguments_name_the_file(config_file):
    with pytest.raises(
        config.ConfigError, match=r"experiment\.py: unknown config argument 'spets'"
    ):
        config.load(f"{config_file}:spets=3")


def test_what_is_no_config_file_names_the_nearest(config_file, tmp_path):
    for given in ("expriment.py", "expriment.py:steps=3", "experiment"):
        with pytest.raises(FileNotFoundError, match=r"did you mean '.*/experiment\.py'"):
            config.load(str(tmp_path / given))
    with pytest.raises(FileNotFoundError, match=r"is a folder; .*/experiment\.py'"):
        config.load(str(tmp_path))
    config_file.write_text("def get_config(:\n")
    with pytest.raises(ValueError, match=r"experiment\.py line 1: "):
        config.load(str(config_file))


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 4
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    rate: float = 0.1


@pytest.mark.parametrize("wrap", [dict, ml_collections.ConfigDict])
def test_settings_are_built_recursively(wrap):
    given = wrap({"inner": wrap({"sizes": [3, 4]}), "rate": 0.2})
    assert config.to_settings(Outer, given) == Outer(Inner(4, (3, 4)), 0.2)
    assert config.to_settings(Outer, wrap({})) == Outer()
    assert config.to_settings(Outer, {"inner": Inner(9)}) == Outer(Inner(9))


def test_a_locked_config_is_read_too():
    given = ml_collections.ConfigDict({"inner": {"width": 5}}).lock()
    assert config.to_settings(Outer, given).inner.width == 5


def test_unknown_settings_are_named_with_their_path():
    with pytest.raises(ValueError, match=r"config\.inner\.widht .* did you mean 'width'\?"):
        config.to_settings(Outer, {"inner": {"widht": 5}})
    with pytest.raises(ValueError, match=r"model\.speed is not a setting"):
        config.to_settings(Outer, {"speed": 5}, "model")


@dataclasses.dataclass(frozen=True)
class Steps:
    steps: int = 10
    size: float = 0.5

    def __post_init__(self):
        config.require_positive(self, "steps")


def test_settings_of_a_file_name_the_argument_at_fault(config_file):
    assert config.read(Steps, f"{config_file}:steps=3", "mine") == Steps(3)
    with pytest.raises(config.ConfigError, match=r"experiment\.py:steps=0: Steps\.steps must be"):
        config.read(Steps, f"{config_file}:size=2,steps=0", "mine")


def test_a_config_of_another_command_names_it(config_file, tmp_path, monkeypatch):
    """By its docstring: the command that is given the config, else the first one."""
    monkeypatch.chdir(tmp_path)
    body = config_file.read_text()
    first = '"""Steps.\n\nRecords:\n  python -m before.it --config=configs/a.py\n'
    last = '  python -m {} --steps \\\\\n      --config=configs/{}.py:steps=3\n"""\n'
    for name, module in {"ours": "our.program", "theirs": "their.program"}.items():
        path = tmp_path / "configs" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(first + last.format(module, name) + body)
        assert config.command_of(path) == module
    said = (
        r"configs/theirs\.py is a config of python -m their\.program; python -m our\.program takes "
    )
    with pytest.raises(config.ConfigError, match=said + r"configs/ours\.py$") as caught:
        config.read(Inner, "configs/theirs.py", "our.program")
    assert caught.value.file == "configs/ours.py"
    with pytest.raises(config.ConfigError, match=r"config\.size is not a setting"):
        config.read(Inner, "configs/ours.py", "our.program")
    assert config.command_of(config_file) is None

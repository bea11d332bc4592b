"""The model in a nested checkpoint is found, and what does not fit it is told."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.convert import nesting
from trajvit_jax.convert.contents import CheckpointError
from trajvit_jax.convert.report import Cast, Report, WrongShape, match, summarize

A, B = np.zeros(2), np.ones(3)
OPTIMIZER = {
    "state": {i: {"step": A, "exp_avg": A, "exp_avg_sq": A} for i in range(3)},
    "param_groups": [{"lr": 1e-4, "params": [0, 1, 2]}],
}


class TestNesting:
    @pytest.mark.parametrize(
        ("tree", "place", "elsewhere"),
        [
            ({"w": A, "b": B}, "", {}),
            ({"model": {"w": A}, "optimizer": OPTIMIZER, "epoch": 3}, "model", {"optimizer": 9}),
            ({"optimizer": OPTIMIZER, "state_dict": {"w": A}}, "state_dict", {"optimizer": 9}),
            ({"optims": [OPTIMIZER], "module": {"w": A}}, "module", {}),
            ({"model_ema": {"w": A, "b": B}, "model": {"w": A}}, "model", {"model_ema": 2}),
            ({"a": {"w": A}, "b": {"w": A, "b": B}}, "b", {"a": 1}),
            ({"state_dict": {"model": {"w": A}}, "loss": A}, "state_dict/model", {"": 1}),
            ({"ema": {"net": {"w": A, "b": B}}}, "ema/net", {}),
        ],
    )
    def test_the_model_is_found(self, tree, place, elsewhere):
        found = nesting.find(tree)
        assert (found.place, found.elsewhere) == (place, elsewhere)
        inner = tree
        for key in filter(None, place.split("/")):
            inner = inner[key]
        assert found.tensors.keys() == {k for k, v in inner.items() if isinstance(v, np.ndarray)}

    def test_what_is_no_tensor_is_named(self):
        tree = {"model": {"w": A, "_extra": None}, "epoch": 3, "config": {"lr": 0.1}}
        assert set(nesting.find(tree).skipped) == {"model/_extra", "epoch", "config/lr"}

    def test_another_place_can_be_named(self):
        tree = {"model": {"w": A}, "model_ema": {"w": B}}
        assert nesting.find(tree, "model_ema").tensors["w"] is B
        with pytest.raises(CheckpointError, match="did you mean 'model_ema'"):
            nesting.find(tree, "modelema")

    def test_one_mapping_at_two_places_is_at_both(self):
        """As a program leaves it whose averaged model is still the model itself."""
        model = {"w": A, "b": B}
        tree = {"model": model, "model_ema": model, "epoch": 3}
        for place in ("model", "model_ema"):
            found = nesting.find(tree, place)
            assert (found.tensors, found.place, found.elsewhere) == (model, place, {})

    def test_a_place_in_flat_names_is_their_beginning(self):
        found = nesting.find({"sd/w": A, "sd/b": B, "in/video": A}, "sd")
        assert found.tensors.keys() == {"w", "b"}
        assert (found.place, found.elsewhere) == ("sd", {"": 1})

    def test_a_key_may_hold_a_slash(self):
        assert nesting.find({"a/b": {"w": A}}).tensors.keys() == {"w"}

    def test_a_place_in_a_flat_file_is_too_much(self):
        with pytest.raises(CheckpointError, match=r"arrays are at the top; leave .*--place.* out"):
            nesting.find({"w": A}, "model")

    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            ({"epoch": 3, "config": {}}, "only 'epoch', 'config'"),
            ({"optimizer": OPTIMIZER}, "no tensors of a model, only 'optimizer'"),
            ({}, "only nothing"),
            ([A], "holds a list"),
            (A, "holds a ndarray"),
        ],
    )
    def test_no_tensors(self, tree, message):
        with pytest.raises(CheckpointError, match=message):
            nesting.find(tree)

    def test_a_mapping_that_holds_itself_ends(self):
        tree = {"model": {"w": A}}
        tree["model"]["again"] = tree
        assert nesting.find(tree).place == "model"

    def test_a_deep_tree_overflows_nothing(self):
        tree = {"w": A}
        for _ in range(2_000):
            tree = {"x": tree}
        assert nesting.find(tree).tensors.keys() == {"w"}

    @pytest.mark.parametrize(
        ("given_names", "names", "prefix"),
        [
            (("module.a", "module.b.c"), ("a", "b.c"), "module."),
            (("module._orig_mod.a",), ("a",), "module._orig_mod."),
            (("module.a", "b"), ("module.a", "b"), ""),
            (("model.a", "model.b"), ("model.a", "model.b"), ""),
            (("modules.a",), ("modules.a",), ""),
            (("module.",), ("module.",), ""),
        ],
    )
    def test_prefixes_of_wrappers(self, given_names, names, prefix):
        assert nesting.unwrap(dict.fromkeys(given_names, 1)) == (dict.fromkeys(names, 1), prefix)


class TestReport:
    def test_every_array_is_in_one_list(self):
        found = {
            "a": np.zeros((2, 3), np.float32),
            "b": np.zeros(4, ml_dtypes.bfloat16),
            "c": np.zeros((3, 2), np.float32),
            "d": np.zeros((), np.int64),
        }
        report = match(found, {"a": (2, 3), "b": (4,), "c": (2, 3), "e": ()})
        assert report == Report(
            used=("a", "b"),
            missing=("e",),
            left_over=("d",),
            wrong_shape=(WrongShape("c", (3, 2), (2, 3)),),
            cast=(Cast("b", "bfloat16", "float32"),),
        )
        assert not match(found, {"b": (4,)}, dtype=ml_dtypes.bfloat16).cast

    def test_incomplete_raises_with_names_and_shapes(self):
        found = {"a": np.zeros(2, np.float32), "extra": np.zeros(2, np.float32)}
        match(found, {"a": (2,)}).raise_if_incomplete()
        report = match(found, {"a": (3,), "head.bias": ()})
        with pytest.raises(ValueError, match=r"x\.pt .*\(1 missing, 1 of the wr") as caught:
            report.raise_if_incomplete("x.pt")
        for text in ("head.bias", "a: (2,) in the checkpoint, (3,) in the model", "extra"):
            assert text in str(caught.value)

    def test_lines_are_few(self):
        expected = {
            f"encoder.layer.{i}.{name}": (3,) for i in range(12) for name in ("weight", "bias")
        }
        expected |= {f"stages.{i}.blocks.{j}.conv": (3,) for i in range(4) for j in range(2)}
        expected["cls"] = (3,)
        found = {name: np.zeros(3, np.float32) for name in expected}
        del found["encoder.layer.3.bias"], found["cls"]
        assert match(found, expected).lines() == [
            "used: 31 of the 33 arrays that the model has",
            "  encoder.layer.0..2.* (6 arrays)",
            "  encoder.layer.4..11.* (16 arrays)",
            "  encoder.layer.3.weight",
            "  stages.0..3.* (8 arrays)",
            "missing: 2 arrays of the model are not in the checkpoint",
            "  encoder.layer.3.bias",
            "  cls",
        ]

    def test_long_lists_end(self):
        lines = match({}, {f"{letter}": () for letter in "abcdefghijklmnopqrstuvwxyz"}).lines()
        assert lines[-1] == "  ... and 6 more lines"
        assert len(lines) == 1 + 1 + 20 + 1

    def test_a_single_line_is_not_left_out(self):
        lines = match({}, {f"{letter}": () for letter in "abcdefghijklmnopqrstu"}).lines()
        assert lines[-1] == "  u"


parts = st.sampled_from(["0", "1", "2", "3", "10", "01", "a", "b"])
dotted = st.lists(parts, min_size=1, max_size=4).map(".".join)


def as_regex(pattern):
    """0..3 as (0|1|2|3), .* as all that follows."""
    pattern = re.sub(
        r"(\d+)\.\.(\d+)",
        lambda run: f"({'|'.join(map(str, range(int(run[1]), int(run[2]) + 1)))})",
        pattern,
    )
    return pattern.replace(".", r"\.").replace(r"\.*", r"\..*")


@given(names=st.sets(dotted, max_size=30), others=st.sets(dotted, max_size=10))
@settings(deadline=None)
def test_a_summary_stands_for_its_names_alone(names, others):
    """Read as patterns, the lines match every name once and no other one."""
    among = names | others
    matched = []
    for line in summarize(sorted(names), among):
        pattern, count = re.fullmatch(r"(\S+)(?: \((\d+) arrays\))?", line).groups()
        regex = re.compile(as_regex(pattern))
        members = [name for name in among if regex.fullmatch(name)]
        assert len(members) == int(count or 1), line
        matched += members
    assert sorted(matched) == sorted(names)

"""Which settings must agree for arrays to mean the same."""

from __future__ import annotations

import dataclasses

import pytest

from trajvit_jax.convert.compatibility import DEPENDS, disagreements, is_below, leaves
from trajvit_jax.models.settings import ModelSettings, TrajViTSettings

# Settings that may differ: how programs run, how parameters started, how much there may be of
# something. A text side may run fewer of the layers that are there.
FREE = frozenset(
    {
        "automerge.query_std",
        "deterministic",
        "dtype",
        "impl",
        "encoder.init_std",
        "encoder.remat",
        "encoder.unroll",
        "text.cleaning",
        "text.depth",
        "text.init_std",
        "text.layers_run",
        "text.length",
        "text.unroll",
        "trajvit.max_trajectories",
        "trajvit.resampler.query_std",
    }
)


def test_every_setting_is_compared_or_free():
    """A new setting must be put into one of the two tables."""
    compared = {n for table in DEPENDS.values() for names in table.values() for n in names}
    for name in leaves(ModelSettings()):
        depends = any(is_below(name, setting) for setting in compared)
        assert depends != (name in FREE), name
    known = leaves(ModelSettings())
    assert all(any(is_below(name, setting) for name in known) for setting in compared | FREE)


@pytest.mark.parametrize("reader", ["resampler", "mlp"])
def test_positions_may_be_new_to_a_folder_that_has_none(reader):
    parts, names = ["tokenizer"], ["tokenizer.appearance.norm.scale"]
    without, reading = (
        dataclasses.replace(ModelSettings(), trajvit=own)
        for own in (TrajViTSettings(position="none"), TrajViTSettings(position_reader=reader))
    )
    assert disagreements(without, reading, parts, names) == []
    told = disagreements(reading, without, parts, names)
    assert told and all("trajvit.position" in one for one in told)

"""Tables in Markdown."""

from __future__ import annotations

import pytest

from tokenization.markdown import markdown_table


def test_first_columns_go_left_and_numbers_right():
    rows = [("TrajViT", "16"), ("ToMe", "1,568")]
    assert markdown_table(("model", "n"), rows).splitlines() == [
        "| model | n |",
        "| --- | ---: |",
        "| TrajViT | 16 |",
        "| ToMe | 1,568 |",
    ]
    assert markdown_table(("a", "b"), [], left=2).splitlines() == ["| a | b |", "| --- | --- |"]


def test_padded_columns_are_aligned():
    rows = [("TrajViT", "16"), ("ToMe", "1,568")]
    assert markdown_table(("model", "n"), rows, padded=True).splitlines() == [
        "| model   |     n |",
        "| ------- | ----: |",
        "| TrajViT |    16 |",
        "| ToMe    | 1,568 |",
    ]


def test_a_row_without_all_cells_is_an_error():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        markdown_table(("model", "n"), [("TrajViT",)])

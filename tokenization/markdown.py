"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, padded: bool = False
) -> str:
    """Rows of cells as a table.

    Args:
      head: titles of the columns.
      rows: as many cells each.
      left: so many first columns go to the left, the others, of numbers, to the right.
      padded: columns are aligned for those who read the table as text, too.

    Raises:
      ValueError: a row of more or fewer cells than columns.
    """
    lines = [list(row) for row in (head, *rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(4, *map(len, column)) if padded else 0 for column in columns]
    lines.insert(1, [_rule(width, left=i < left) for i, width in enumerate(widths)])
    return "\n".join(
        "| " + " | ".join(_cell(*one, left=i < left) for i, one in enumerate(cells)) + " |"
        for cells in (zip(line, widths, strict=True) for line in lines)
    )


def _rule(width: int, *, left: bool) -> str:
    return "-" * max(3, width) if left else "-" * max(3, width - 1) + ":"


def _cell(text: str, width: int, *, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)

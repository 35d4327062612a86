"""Markdown tables with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; a column whose cells are all figures stands to the right."""
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    right = [all(line[column][:1] in "0123456789.-" for line in lines) for column in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |\n"

    rule = [
        "-" * (max(width, 3) - 1) + (":" if is_right else "-") for width, is_right in zip(widths, right, strict=True)
    ]
    return row(head) + f"| {' | '.join(rule)} |\n" + "".join(row(line) for line in lines)

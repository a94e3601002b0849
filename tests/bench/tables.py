"""Plain aligned tables."""

from collections.abc import Sequence

__all__ = ["table", "verdict"]


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header; the first column to the left, all others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    print(f"\n{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        first, *rest = row
        cells = [
            first.ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)),
        ]
        print("  " + "  ".join(cells).rstrip())


def verdict(value: float, limit: float | None, *, at_least: bool = False) -> tuple[str, str]:
    """Return a limit and whether it is kept, as two cells."""
    if limit is None:
        return "", ""
    kept = value >= limit if at_least else value <= limit
    return f"{'>=' if at_least else '<='} {limit:.2f}", "OK" if kept else "over"

"""Figures and tables as Markdown."""


def with_interval(entry: dict[str, float | None], digits: int, sign: bool = False) -> str:
    """`0.812 (0.790 to 0.831)`; the mean alone where there are too few cases for an interval."""
    plus = "+" if sign else ""
    mean, low, high = (entry[key] for key in ("mean", "low", "high"))
    if low is None or high is None:
        return f"{mean:{plus}z.{digits}f}"
    return f"{mean:{plus}z.{digits}f} ({low:{plus}z.{digits}f} to {high:{plus}z.{digits}f})"


def p_value(value: float | None) -> str:
    """Three digits, or that it is smaller; a dash where there are too few cases."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def table(rows: list[list[str]]) -> str:
    """Markdown, the first row being the head."""
    lines = [" | ".join(row) for row in rows]
    lines.insert(1, " | ".join("---" for _ in rows[0]))
    return "\n".join(f"| {line} |" for line in lines)

"""How one number stands in a table: its digits, its mark among others, what is to be said of it below."""

from collections.abc import Mapping

from results.layout import Column
from results.sheets import DASH, Mark
from results.summaries import SEED_WORDS, Summary


def shown(column: Column, summary: Summary) -> str:
    """The number as it stands in the table, with its spread or its interval."""
    if summary.mean is None:
        return DASH
    text = number(column, summary.mean, column.decimals)
    if summary.std is not None:
        return f"{text} ± {number(column, summary.std, column.decimals)}"
    if summary.low is not None and summary.high is not None:
        ends = (number(column, end, column.interval_decimals) for end in (summary.low, summary.high))
        return f"{text} [{', '.join(ends)}]"
    return text


def number(column: Column, value: float, decimals: int) -> str:
    """The rounded number; zero has no sign."""
    text = f"{value:.{decimals}{'e' if column.is_scientific else 'f'}}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float, decimals: int) -> str:
    """The number with its sign; zero has none."""
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def ranked(values: Mapping[str, float], direction: str) -> dict[str, Mark]:
    """The marks of the best and the next best of some numbers as shown, by their keys."""
    if direction == "none" or len(values) < 2:
        return {}
    ranking = sorted(set(values.values()), reverse=direction == "up")
    marks: dict[float, Mark] = dict(zip(ranking, ("best", "second"), strict=False))
    return {key: marks[value] for key, value in values.items() if value in marks}


def footnote(summary: Summary) -> str:
    """What is to be said of a number below the table; empty where it stands for itself."""
    text = summary.reason or ""
    if summary.n_seeds == summary.n_expected:
        # Why things were left out stands in the records; only remarks stand here.
        return "" if summary.n_excluded else text
    if summary.n_expected > 1:
        return f"{summary.n_seeds} of {summary.n_expected} {SEED_WORDS.get(summary.seeds, 'panel')}s ({text})"
    return text

"""What stands on a report, as data: words, tables and figures, and what can be explored."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from results.report.data import Views


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        name: Its name on the command line.
        title: Above it.
        html: The table as `results.tables.render` makes it in the format "html": escaped, with its caption.
    """

    name: str
    title: str
    html: str


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: Its name on the command line.
        title: Above it.
        says: What it shows, in a sentence, for those who cannot see it.
        svg: The file.
        words: All of it in words, with its numbers; may be empty.
    """

    name: str
    title: str
    says: str
    svg: bytes
    words: str = ""


@dataclass(frozen=True)
class Trouble:
    """Cells that have no numbers, for one and the same reason.

    Attributes:
        state: "failed", "skipped" or "to do".
        reason: Why; empty where there is nothing to say.
        cells: Their names.
    """

    state: str
    reason: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything that stands on the page, in the order of the page.

    Attributes:
        suite: Name of the suite.
        description: What the suite is for, in a sentence; may be empty.
        warnings: What a reader has to know before any number.
        facts: Where the numbers come from: name and text, in order.
        counts: How many cells are in each state.
        troubles: The cells without numbers.
        leaderboard: The first table, the leaderboard where the run has one; None where nothing was measured yet.
        leaders: Which method is best at each site, a sentence each.
        reading: What that table's columns mean and its methods are: a heading, then names with a line each.
        pareto: Faithfulness against interpretability; None where there is no such figure.
        tables: The other tables.
        figures: The other figures.
        panels: Who judged, one sentence for each panel.
        panel_tables: What panels of judges said, as tables.
        panel_figures: The same as figures.
        views: Units and judged pairs that can be explored.
        left_out: What is not on the page although the run has it, and why.
        command: What makes this page again.
        next_step: What to do where nothing was measured yet.
    """

    suite: str
    description: str
    warnings: Sequence[str]
    facts: Sequence[tuple[str, str]]
    counts: Sequence[tuple[str, int]]
    troubles: Sequence[Trouble]
    leaderboard: Sheet | None
    pareto: Drawing | None
    tables: Sequence[Sheet]
    figures: Sequence[Drawing]
    panels: Sequence[str]
    panel_tables: Sequence[Sheet]
    panel_figures: Sequence[Drawing]
    command: str
    next_step: str
    views: Views = field(default_factory=Views)
    left_out: Sequence[str] = ()
    leaders: Sequence[str] = ()
    reading: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()

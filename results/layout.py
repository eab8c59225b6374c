"""What a table shows, as data: its columns, its rows in their order, and the cells that the rows are made of.

A column says what its numbers are taken over: the token seeds at the first init seed, the init seeds at the first token
seed, the one comparison of all init seeds, or what one panel of judges said, all token seeds together. Beside them
stand the paper's own figures (`results.published`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

Seeds = Literal["token_seeds", "init_seeds", "comparison", "llm_panel", "proxy_panel"]
"""What a column's numbers are taken over."""
PANELS: Final[tuple[Seeds, ...]] = ("llm_panel", "proxy_panel")
"""Kinds of panels of judges; what the one says never stands in a column of the other."""


@dataclass(frozen=True)
class Column:
    """One metric as a column.

    Attributes:
        metric: Name of the metric in the records.
        heading: Words above the column; a percent sign and the arrow of the direction are added.
        direction: Whether more is better ("up"), less is better ("down"), or neither, so that nothing is marked.
        decimals: Digits after the point.
        interval_decimals: Digits after the point of the interval's ends, which are rarely known better.
        unit: Unit that the records must have.
        is_scientific: Written as 2.9e-06.
        seeds: What its numbers are taken over.
        less: Label of the row that is taken off, seed by seed; None shows the metric as it is.
        csv_only: Left out of the markdown, which a terminal must hold.
    """

    metric: str
    heading: str
    direction: Literal["up", "down", "none"]
    decimals: int
    interval_decimals: int
    unit: str
    is_scientific: bool = False
    seeds: Seeds = "token_seeds"
    less: str | None = None
    csv_only: bool = False

    def __hash__(self) -> int:
        """Of two fields only: columns are keys of what is looked up for every number of a table."""
        return hash((self.metric, self.heading))


@dataclass(frozen=True)
class Figure:
    """What the paper prints for one column.

    Attributes:
        column: Name of the column in the paper's table.
        scale: What the printed number is multiplied by to be in the column's unit.
        less: Key of the paper's row that is taken off; None takes nothing off.
        over: Key of the paper's row that it is divided by; None leaves it.
        csv_only: Whether it stands in the CSV alone, where the table is wide.
        spread: Name of the column with its standard deviation, shown behind it as it is printed; none if empty.
    """

    column: str
    scale: Decimal = Decimal(1)
    less: str | None = None
    over: str | None = None
    csv_only: bool = False
    spread: str = ""


@dataclass(frozen=True)
class Published:
    """One table of the paper, to stand beside the numbers that were measured here.

    Attributes:
        file: Name of the file in `results/published`.
        says: What it is, in words, for the note below the table.
        key: The column of the file that names the row.
        figures: What it prints, by the heading of the column that it stands beside.
        where: Which rows of the file, by column and entry; one set for each figure that stands in a cell.
        keys: The row of each label; a label that is not there is looked up as it is.
        sites: Which rows of the file belong to each site, by its label, where that makes a difference; a site that is
            not there has no figures.
    """

    file: str
    says: str
    key: str
    figures: Mapping[str, Figure]
    where: tuple[Mapping[str, str], ...] = ({},)
    keys: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Printed:
    """One column of a table of the paper, as it stands there.

    Attributes:
        heading: Words above the column.
        column: Name of the column in the file.
        ours: Heading of the column of ours that has the same place; empty where we have none.
        group: Words above this column and its neighbours of the same group.
        direction: Which way the paper's arrow points; "none" where it has none.
        spread: Name of the column with the standard deviation; empty where there is none.
        ends: Names of the columns with the ends of an interval, which then stand in brackets in a column of their own.
        note: What has to be known of the column, for a footnote.
    """

    heading: str
    column: str
    ours: str = ""
    group: str = ""
    direction: Literal["up", "down", "none"] = "none"
    spread: str = ""
    ends: tuple[str, str] | None = None
    note: str = ""


@dataclass(frozen=True)
class PaperForm:
    """How the paper lays a table out, so that its numbers and ours can stand in the same places.

    Attributes:
        number: Of the table.
        file: Name of the file in `results/published`.
        title: What it shows, in our words.
        words: Headings of the columns of words: of the groups, then of the rows.
        key: The column of the file that names the row.
        columns: The columns of numbers, in the paper's order.
        by: The columns of the file whose entries tell the groups of rows apart; the first one's name stands there.
        model: What all rows were measured on, where no column says it.
        names: What an entry of the file is called in print: groups, rows, and other texts.
        remarks: What has to be known of its numbers.
    """

    number: int
    file: str
    title: str
    words: tuple[str, ...]
    key: str
    columns: tuple[Printed, ...]
    by: tuple[str, ...] = ()
    model: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def name(self, entry: str) -> str:
        """What an entry is called in print; an entry without a name is called what it is."""
        return self.names.get(entry, entry)


Beside = Literal["column", "cell", "nothing"]
"""Where the paper's figures stand: in columns of their own, in the cells with the difference, or nowhere."""


@dataclass(frozen=True)
class TableSpec:
    """A table without its numbers.

    Attributes:
        name: Its name on the command line and in README markers.
        title: First words of its caption.
        columns: Its columns from left to right.
        published: What the paper prints for some of them.
        about: Metrics without any of which there is no such table; empty where any of its columns will do.
        takes_others: Whether it also shows what a run measures and no table has a column for.
        by_machine: Whether rows that were measured on different machines are kept, and ranked, apart.
        form: How the paper lays it out; None of tables of our own.
        beside: Where the paper's figures stand if nothing else is asked for.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    published: Published | None = None
    about: tuple[str, ...] = ()
    takes_others: bool = False
    by_machine: bool = False
    form: PaperForm | None = None
    beside: Beside = "column"


@dataclass(frozen=True)
class Site:
    """One group of rows.

    Attributes:
        label: Label of the site in the suite.
        dataset: Name of the data set.
        backbone: Name of the backbone.
        module: Module path of the site in the backbone.
        machine: What its rows were measured on, in tables that keep machines apart; empty in the others.
        warnings: What a reader of its numbers has to be told first.
    """

    label: str
    dataset: str
    backbone: str
    module: str
    machine: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """One sweep, as it was planned.

    Attributes:
        site: Label of the site in the suite.
        label: Label of the method in the suite.
        swept: Names of the options that vary.
        trials: What identifies its variants in the records, in their order.
    """

    site: str
    label: str
    swept: Sequence[str]
    trials: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """Which rows a table has, and which cells each of them stands for.

    A row is there where `cells` has at least one cell of the site and the label. Records of other cells are ignored,
    so that what an earlier version of the suite left in the ledger changes nothing.

    Attributes:
        sites: The groups of rows, in order.
        labels: Labels of the methods, in the order of the rows of each group.
        token_seeds: The token seeds, in order.
        init_seeds: The init seeds, in order.
        cells: Hash of the cell expected for each (site label, method label, token seed, init seed).
        comparisons: Hash of what compares all init seeds, for each (site label, method label) where they are compared.
        verdicts: Hash of what a panel found, for each (kind of panel, site label, method label) that was judged.
        panels: What each kind of panel was, in a few words, for the caption.
        references: Labels that are there to compare with (backbone, random partition), never ranked.
        sweeps: The sweeps, in order.
        states: What to say of a cell without a closed group of records, by hash; "not run yet" where it is not here.
        measured: Names of the metrics that the run measures; None where that is not known, so that all are expected.
        others: Columns for those that no table has.
    """

    sites: tuple[Site, ...]
    labels: tuple[str, ...]
    token_seeds: tuple[int, ...]
    init_seeds: tuple[int, ...]
    cells: Mapping[tuple[str, str, int, int], str]
    comparisons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    verdicts: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    panels: Mapping[str, str] = field(default_factory=dict)
    references: frozenset[str] = frozenset()
    sweeps: tuple[Sweep, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    measured: frozenset[str] | None = None
    others: tuple[Column, ...] = ()

    def rows(self) -> list[tuple[Site, str]]:
        """Site and method label of every row, from top to bottom."""
        present = {(site, label) for site, label, _, _ in self.cells}
        return [(site, label) for site in self.sites for label in self.labels if (site.label, label) in present]

    def expected(self, seeds: Seeds, site: str, label: str) -> list[tuple[str, str]]:
        """What each number of a row is expected from: the seed in words, and the hash of the cell."""
        if seeds == "comparison":
            found = self.comparisons.get((site, label))
            return [] if found is None else [("comparison", found)]
        if seeds in PANELS:
            judged = self.verdicts.get((seeds, site, label))
            return [] if judged is None else [("panel", judged)]
        pairs = [(str(seed), (seed, self.init_seeds[0])) for seed in self.token_seeds]
        if seeds == "init_seeds":
            pairs = [(str(seed), (self.token_seeds[0], seed)) for seed in self.init_seeds]
        return [(words, self.cells[site, label, *pair]) for words, pair in pairs if (site, label, *pair) in self.cells]

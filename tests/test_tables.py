"""Tables say what the records say: spread, marks, reasons; the same records in any order give the same bytes."""

import io
import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.records import Record
from results.tables import FORMATS, TABLES, Column, Layout, Site, TableSpec, embed, find_table, render

SPEC = TableSpec(
    name="small",
    title="A small table",
    columns=(
        Column("score", "score", "up", 2, 1, "%"),
        Column("loss", "loss", "down", 1, 1, "1"),
        Column("gap", "gap", "none", 1, 1, "1", is_scientific=True),
    ),
)
UNITS = {"score": "%", "loss": "1", "gap": "1"}
PROVENANCE: dict[str, Any] = {
    "suite": "tiny",
    "site": "s",
    "dataset": "shapes",
    "backbone": "vit",
    "module": "blocks.0.mlp.fc1",
    "method": "elude",
    "label": "l",
    "token_seed": 0,
    "init_seed": 0,
    "commit": None,
    "dirty": None,
    "versions": {},
    "device": "cpu",
    "time": "2025-11-21T05:35:00+00:00",
}


def measured(cell: str, metric: str, value: float | None, **changes: Any) -> Record:
    """A value row."""
    row: dict[str, Any] = {"value": value, "unit": UNITS[metric], "interval": "exact", "n": 10, **changes}
    return Record(kind="value", cell=cell, metric=metric, **PROVENANCE | row)


def ending(cell: str, failure: str | None = None) -> Record:
    """The row that closes a cell."""
    text = "failed" if failure else "complete"
    return Record(kind="cell", cell=cell, metric="status", text=text, reason=failure, **PROVENANCE)


def complete(cell: str, **values: float) -> list[Record]:
    """A closed cell with exact values."""
    return [*(measured(cell, metric, value) for metric, value in values.items()), ending(cell)]


def table_of(scores: Mapping[str, float], references: frozenset[str] = frozenset(), metric: str = "score") -> str:
    """Markdown of one site and one token seed, with one value per label."""
    records = [row for label, value in scores.items() for row in complete(label, **{metric: value})]
    return render(SPEC, records, layout=layout_of(*scores, references=references), format="md")


def layout_of(*labels: str, n_seeds: int = 1, references: frozenset[str] = frozenset(), sites: str = "s") -> Layout:
    """A layout whose cells are named after the label, and after site and seed where there are several."""
    seeds = tuple(range(n_seeds))

    def cell(site: str, label: str, seed: int) -> str:
        return label + (site if len(sites) > 1 else "") + (str(seed) if n_seeds > 1 else "")

    return Layout(
        sites=tuple(Site(site, "shapes", "vit", "blocks.0.mlp.fc1") for site in sites),
        labels=labels,
        token_seeds=seeds,
        init_seeds=(7,),
        cells={(site, label, seed, 7): cell(site, label, seed) for site in sites for label in labels for seed in seeds},
        references=references,
    )


def cells_of(table: str) -> dict[str, list[str]]:
    """The stripped cells of each row of a markdown table, by its method."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[1]: row[2:] for row in rows}


# Numbers


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100).map(lambda value: round(value, 6)), min_size=2, max_size=5))
def test_over_token_seeds_a_table_shows_mean_and_sample_standard_deviation(values: list[float]) -> None:
    records = [row for seed, value in enumerate(values) for row in complete(f"a{seed}", score=value)]
    text = render(SPEC, records, layout=layout_of("a", n_seeds=len(values)), format="csv")
    row = pandas.read_csv(io.StringIO(text), float_precision="round_trip").iloc[0]
    assert row["mean"] == statistics.fmean(values)
    assert row["std"] == statistics.stdev(values)
    assert math.isclose(row["std"], float(np.std(values, ddof=1)), rel_tol=1e-9, abs_tol=1e-12)
    assert (row["n_seeds"], row["n_seeds_expected"], row["n"]) == (len(values), len(values), 10 * len(values))
    assert np.isnan(row["low"])


def test_the_spread_stands_behind_the_mean() -> None:
    records = [row for seed, value in enumerate((79.5, 79.6, 79.7)) for row in complete(f"a{seed}", score=value)]
    text = render(SPEC, records, layout=layout_of("a", n_seeds=3), format="md")
    assert cells_of(text)["a"][0] == "79.60 ± 0.10"
    assert "Mean ± sample standard deviation over token seeds 0, 1, 2 at init seed 7" in text


def test_from_one_token_seed_the_interval_stands_in_brackets_unless_exact() -> None:
    interval = {"low": 78.94, "high": 80.26, "interval": "bootstrap over atoms"}
    records = [measured("a", "score", 79.6, **interval), measured("a", "loss", 0.25), ending("a")]
    row = cells_of(render(SPEC, records, layout=layout_of("a"), format="md"))["a"]
    assert row[:2] == ["79.60 [78.9, 80.3]", "0.2"]


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [("gap", 2.94e-6, "2.9e-06"), ("gap", 0.0, "0.0e+00"), ("score", -0.001, "0.00"), ("score", -1.0, "-1.00")],
)
def test_small_numbers_are_shown_in_scientific_notation_and_zero_without_a_sign(
    metric: str, value: float, shown: str
) -> None:
    assert shown in cells_of(table_of({"a": value}, metric=metric))["a"]


def test_csv_keeps_every_digit_and_reads_back_with_pandas() -> None:
    rng = random.Random(0)
    values = {f"m{index}": rng.random() * 10.0 ** rng.randint(-12, 12) for index in range(50)}
    records = [row for label, value in values.items() for row in complete(label, gap=value)]
    records = [replace(row, low=row.value / 3, high=row.value) if row.value else row for row in records]
    text = render(SPEC, records, layout=layout_of(*values, references=frozenset({"m3"})), format="csv")
    frame = pandas.read_csv(io.StringIO(text), float_precision="round_trip")
    gaps = frame[frame["metric"] == "gap"].set_index("label")
    assert gaps["mean"].to_dict() == values
    assert gaps["low"].to_dict() == {label: value / 3 for label, value in values.items()}
    assert gaps.index[gaps["is_reference"]].tolist() == ["m3"]
    assert set(gaps["module"]) == {"blocks.0.mlp.fc1"}
    assert len(frame) == 50 * 3


def test_why_things_were_left_out_of_a_value_stands_in_the_csv_and_not_below_the_table() -> None:
    left_out = {"n_excluded": 3, "reason": "3 atoms never active"}
    records = [row for cell in ("a0", "a1") for row in [measured(cell, "score", 1.0, **left_out), ending(cell)]]
    layout = layout_of("a", n_seeds=2)
    row = pandas.read_csv(io.StringIO(render(SPEC, records, layout=layout, format="csv"))).iloc[0]
    assert (row["n"], row["n_excluded"], row["reason"]) == (20, 6, "3 atoms never active")
    assert "never active" not in render(SPEC, records, layout=layout, format="md")


def test_a_value_of_another_unit_than_its_column_is_refused() -> None:
    records = [measured("a", "score", 0.5, unit="1"), ending("a")]
    with pytest.raises(ValueError, match=r"unit: got '1' for score of cell a; expected '%'"):
        render(SPEC, records, layout=layout_of("a"), format="md")


# Marks


@pytest.mark.parametrize(
    ("scores", "marked"),
    [
        ([3, 2, 1], ["**3.00**", "<u>2.00</u>", "1.00"]),
        ([2.001, 1.999, 1], ["**2.00**", "**2.00**", "<u>1.00</u>"]),
        ([3, 1.004, 0.996, 0], ["**3.00**", "<u>1.00</u>", "<u>1.00</u>", "0.00"]),
        ([1, 1], ["**1.00**", "**1.00**"]),
        ([-0.001, 0.001, -1], ["**0.00**", "**0.00**", "<u>-1.00</u>"]),
        ([5], ["5.00"]),
    ],
)
def test_best_and_second_best_are_marked_as_shown_and_ties_share_the_mark(
    scores: list[float], marked: list[str]
) -> None:
    labels = [f"m{index}" for index in range(len(scores))]
    rows = cells_of(table_of(dict(zip(labels, scores, strict=True))))
    assert [rows[label][0] for label in labels] == marked


def test_the_direction_of_the_column_decides_what_is_best() -> None:
    scores = {"a": 3.0, "b": 2.0, "c": 1.0}
    assert [row[1] for row in cells_of(table_of(scores, metric="loss")).values()][2:] == [
        "3.0",
        "<u>2.0</u>",
        "**1.0**",
    ]
    gaps = table_of(scores, metric="gap")
    assert [row[2] for row in cells_of(gaps).values()][2:] == ["3.0e+00", "2.0e+00", "1.0e+00"]
    assert cells_of(gaps)["method"] == ["score (%) ↑", "loss ↓", "gap"]


def test_reference_rows_are_in_italics_and_take_no_part_in_the_ranking() -> None:
    rows = cells_of(table_of({"base": 9, "a": 3, "b": 2, "random": 2}, frozenset({"base", "random"})))
    assert [rows["*base*"][0], rows["*random*"][0]] == ["*9.00*", "*2.00*"]
    assert [rows["a"][0], rows["b"][0]] == ["**3.00**", "<u>2.00</u>"]


def test_one_contestant_beside_references_or_failures_is_not_marked() -> None:
    assert cells_of(table_of({"base": 9, "a": 3}, frozenset({"base"})))["a"][0] == "3.00"
    records = [*complete("a", score=3), ending("b", "RuntimeError: boom")]
    assert cells_of(render(SPEC, records, layout=layout_of("a", "b"), format="md"))["a"][0] == "3.00"


def test_every_site_is_ranked_by_itself() -> None:
    scores = {"ax": 1.0, "bx": 2.0, "ay": 4.0, "by": 3.0}
    records = [row for cell, score in scores.items() for row in complete(cell, score=score)]
    text = render(SPEC, records, layout=layout_of("a", "b", sites="xy"), format="md")
    lines = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| ")][2:]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["x", "a", "<u>1.00</u>"],
        ["", "b", "**2.00**"],
        ["y", "a", "**4.00**"],
        ["", "b", "<u>3.00</u>"],
    ]


# What is missing


def test_a_missing_value_is_a_dash_with_its_reason_below() -> None:
    records = [
        *[measured("null", "score", None, reason="no atom fires", n=2, n_excluded=62), ending("null")],
        *[measured("failed", "score", 99.0), ending("failed", "RuntimeError: out of memory")],
        measured("open", "score", 99.0),
        *complete("stale", score=99.0),
    ]
    layout = layout_of("null", "failed", "open", "later", "skipped")
    layout = replace(layout, states={"skipped": "skipped: needs the weight", "null": "never said"})
    text = render(SPEC, records, layout=layout, format="md")
    rows = cells_of(text)
    assert {label: row[0] for label, row in rows.items() if label in layout.labels} == {
        "null": "— (a)",
        "failed": "— (c)",
        "open": "— (d)",
        "later": "— (d)",
        "skipped": "— (e)",
    }
    assert rows["null"][1] == "— (b)"
    assert text.splitlines()[-5:] == [
        "- (a) no atom fires (2 of 64)",
        "- (b) not measured",
        "- (c) failed: RuntimeError: out of memory",
        "- (d) not run yet",
        "- (e) skipped: needs the weight",
    ]
    assert "99" not in text
    assert "stale" not in text
    reasons = pandas.read_csv(io.StringIO(render(SPEC, records, layout=layout, format="csv")))
    assert reasons.loc[reasons["label"] == "failed", "reason"].unique().tolist() == [
        "failed: RuntimeError: out of memory"
    ]
    assert reasons["mean"].isna().all()


def test_where_token_seeds_are_missing_the_footnote_says_how_many_and_why() -> None:
    records = [*complete("a0", score=1), *complete("a2", score=2), ending("a1", "ValueError: bad")]
    records += complete("b1", score=5)
    text = render(SPEC, records, layout=layout_of("a", "b", "c", n_seeds=3), format="md")
    rows = cells_of(text)
    assert rows["a"][0] == "<u>1.50 ± 0.71</u> (a)"
    assert rows["b"][0] == "**5.00** (c)"
    assert "- (a) 2 of 3 token seeds (token seed 1: failed: ValueError: bad)\n" in text
    assert "- (c) 1 of 3 token seeds (token seeds 0, 2: not run yet)\n" in text
    assert rows["c"][0] == "— (e)"
    assert "- (e) 0 of 3 token seeds (not run yet)\n" in text


def test_a_method_that_is_not_expected_at_a_site_has_no_row_there() -> None:
    layout = layout_of("a", "b")
    layout = replace(layout, cells={key: cell for key, cell in layout.cells.items() if key[1] == "a"})
    assert set(cells_of(render(SPEC, [], layout=layout, format="md"))) - {"a", "method"} == {"------"}


def test_footnotes_after_z_go_on() -> None:
    labels = [f"m{index}" for index in range(28)]
    records = [ending(label, f"Error: {label}") for label in labels]
    text = render(SPEC, records, layout=layout_of(*labels), format="md")
    assert "- (z) failed: Error: m25\n- (aa) failed: Error: m26\n- (ab) failed: Error: m27\n" in text


def test_what_a_reason_or_a_label_holds_cannot_break_the_table() -> None:
    reason = "Error: <!-- end table --> | *x* `y` __init__ n_atoms"
    layout = layout_of("a|b")
    text = render(SPEC, [ending("a|b", reason)], layout=layout, format="md")
    assert r"failed: Error: &lt;!-- end table --> \| \*x\* \`y\` \_\_init\_\_ n_atoms" in text
    assert "<!-- end table -->" not in text
    assert r"| a\|b " in text
    readme = "<!-- table: small -->\n<!-- end table -->\n"
    once = embed(readme, "small", text)
    assert embed(once, "small", text) == once


# The whole


@pytest.mark.parametrize("format", FORMATS)
def test_the_order_of_the_records_changes_no_byte(format: str) -> None:
    rng = random.Random(1)
    layout = layout_of("base", "a", "b", n_seeds=3, sites="xy", references=frozenset({"base"}))
    records = [
        row
        for cell in layout.cells.values()
        for row in (
            complete(cell, score=rng.random(), loss=rng.random()) if rng.random() < 0.8 else [ending(cell, "E")]
        )
    ]
    texts = {render(SPEC, rng.sample(records, len(records)), layout=layout, format=format) for _ in range(20)}
    assert len(texts) == 1
    assert "failed: E" in next(iter(texts))


def test_the_columns_line_up_in_a_terminal() -> None:
    lines = [line for line in table_of({"a": 3, "a longer label": 200}).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    bars = [[index for index, character in enumerate(line) if character == "|"] for line in lines]
    assert all(positions == bars[0] for positions in bars)


def test_an_older_group_of_the_same_cell_must_be_left_out_by_the_caller() -> None:
    records = [ending("a", "Error: first attempt"), *complete("a", score=1)]
    with pytest.raises(ValueError, match=r"status of cell a twice.*results\.records\.latest"):
        render(SPEC, records, layout=layout_of("a"), format="md")


def test_the_leaderboard_has_its_columns_in_order() -> None:
    text = render(find_table("leaderboard"), [], layout=layout_of("a"), format="md")
    assert cells_of(text)["method"] == [
        "LLM Rank ↓",
        "paper: LLM Rank",
        "proxy panel rank ↓",
        "MS-Score (%) ↑",
        "paper: MS-Score",
        "permuted (%)",
        "MS-Score, pach (%) ↑",
        "excluded (%)",
        "R2 (%) ↑",
        "top-1 (%) ↑",
        "top-5 (%) ↑",
        "agreement (%) ↑",
        "KL",
        "max logit diff.",
        "L0",
        "density (%)",
        "expansion",
    ]


def test_unknown_names_are_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(LookupError, match=r"got 'leaderbord'; expected one of .*; did you mean 'leaderboard'\?"):
        find_table("leaderbord")
    with pytest.raises(LookupError, match=r"one of ablations, .*leaderboard, .*structure, sweep, verdicts; choose one"):
        find_table("xyz")
    with pytest.raises(
        ValueError, match=r"format: got 'cvs'; expected one of csv, html, md, tex; did you mean 'csv'\?"
    ):
        render(SPEC, [], layout=layout_of("a"), format="cvs")
    assert all(find_table(name).name == name for name in TABLES)


# In a README


def test_a_table_replaces_what_stands_between_its_markers_and_nothing_else() -> None:
    text = "# T\n\n<!-- table: a -->\nold \\1\n<!-- end table -->\n\n<!-- table: b -->\n<!-- end table -->\nend"
    new = embed(text, "a", "| \\1 |\n| - |\n")
    assert new == text.replace("old \\1", "| \\1 |\n| - |")
    assert embed(new, "a", "| \\1 |\n| - |\n") == new
    assert embed(text, "b", "x\n").endswith("<!-- table: b -->\nx\n<!-- end table -->\nend")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- table: a -->\n",
        "<!-- end table -->\n<!-- table: a -->\n",
        "<!-- table: a -->\n<!-- table: b -->\n<!-- end table -->\n",
        "<!-- table: a -->\n<!-- end table -->\n" * 2,
        "<!-- table: ab -->\n<!-- end table -->\n",
    ],
)
def test_markers_that_are_not_there_once_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"blocks <!-- table: a --> ... <!-- end table -->; expected one; write"):
        embed(text, "a", "x\n")

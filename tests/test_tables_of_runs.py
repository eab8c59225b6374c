"""What a table is made of beside token seeds: init seeds, comparisons, machines, differences, the paper's figures."""

import csv
import io
import statistics
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from test_tables import PROVENANCE, SPEC, cells_of, complete, ending, layout_of, measured

from bench.folder import layout_of as layout_of_plan
from bench.folder import read_plan, rendered, states, write_plan
from metrics.catalogue import ROWS
from results.layout import Column, Figure, Layout, Published, TableSpec
from results.published import FOLDER, difference, figures, rounded, rows_of
from results.published import shown as published_as
from results.records import Record
from results.specs import ABLATIONS, EFFICIENCY, LEADERBOARD, STRUCTURE
from results.tables import TABLES, NothingToShowError, find_table, render

OVER_INITS = replace(SPEC, columns=tuple(replace(column, seeds="init_seeds") for column in SPEC.columns))
MIXED = replace(SPEC, columns=(replace(SPEC.columns[0], seeds="comparison"), OVER_INITS.columns[1]))


def star(*labels: str) -> Layout:
    """Token seeds 0, 1, 2 at init seed 7, and init seeds 8, 9 at token seed 0; cells are called after both."""
    pairs = [(0, 7), (1, 7), (2, 7), (0, 8), (0, 9)]
    return replace(
        layout_of(*labels, n_seeds=3),
        init_seeds=(7, 8, 9),
        cells={("s", label, t, i): f"{label} {t} {i}" for label in labels for t, i in pairs},
        comparisons={("s", label): f"{label} compared" for label in labels},
    )


def frame(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# Seeds


def test_a_column_over_init_seeds_takes_those_of_the_first_token_seed() -> None:
    records = [row for i, value in ((7, 1.0), (8, 2.0), (9, 4.0)) for row in complete(f"a 0 {i}", score=value)]
    records += [row for t in (1, 2) for row in complete(f"a {t} 7", score=99.0)]
    text = render(OVER_INITS, records, layout=star("a"), format="md")
    spread = statistics.stdev([1.0, 2.0, 4.0])
    assert cells_of(text)["a"][0] == f"{7 / 3:.2f} ± {spread:.2f}"
    assert "Mean ± sample standard deviation over init seeds 7, 8, 9 at token seed 0" in text
    over_tokens = render(SPEC, records, layout=star("a"), format="md")
    assert cells_of(over_tokens)["a"][0] == f"{199 / 3:.2f} ± {statistics.stdev([1.0, 99.0, 99.0]):.2f}"
    assert "over token seeds 0, 1, 2 at init seed 7" in over_tokens


def test_missing_init_seeds_are_named_as_such() -> None:
    records = [*complete("a 0 7", score=1), ending("a 0 8", "E")]
    text = render(OVER_INITS, records, layout=star("a"), format="md")
    assert "- (a) 1 of 3 init seeds (init seed 8: failed: E; init seed 9: not run yet)\n" in text


def test_a_comparison_is_one_value_with_its_own_interval() -> None:
    interval = {"low": 78.94, "high": 80.26, "interval": "bootstrap over units"}
    records = [measured("a compared", "score", 79.6, **interval), ending("a compared")]
    records += [row for i in (7, 8, 9) for row in complete(f"a 0 {i}", loss=float(i))]
    text = render(MIXED, records, layout=star("a"), format="md")
    assert cells_of(text)["a"] == ["79.60 [78.9, 80.3]", "8.0 ± 1.0"]
    caption = text.splitlines()[0]
    assert "score: All pairs of init seeds 7, 8, 9 at token seed 0, compared" in caption
    assert "loss: Mean ± sample standard deviation over init seeds 7, 8, 9" in caption
    rows = frame(render(MIXED, records, layout=star("a"), format="csv"))
    assert [(row["seeds"], row["n_seeds"], row["n_seeds_expected"]) for row in rows] == [
        ("comparison", "1", "1"),
        ("init_seeds", "3", "3"),
    ]


def test_a_comparison_that_is_missing_says_why() -> None:
    records = [*complete("a compared"), measured("b compared", "score", None, reason="no dictionary", n=0)]
    records += [ending("b compared"), ending("c compared", "ValueError: one run")]
    layout = star("a", "b", "c", "d", "e")
    layout = replace(layout, comparisons={key: cell for key, cell in layout.comparisons.items() if key[1] != "e"})
    rows = cells_of(text := render(MIXED, records, layout=layout, format="md"))
    assert [rows[label][0] for label in "abcde"] == ["— (a)", "— (c)", "— (d)", "— (e)", "— (f)"]
    assert text.splitlines()[-6:] == [
        "- (a) not measured",
        "- (b) 0 of 3 init seeds (not run yet)",
        "- (c) no dictionary",
        "- (d) failed: ValueError: one run",
        "- (e) not run yet",
        "- (f) not compared: that takes two init seeds",
    ]


def test_a_difference_is_taken_seed_by_seed() -> None:
    spec = replace(SPEC, columns=(SPEC.columns[0], replace(SPEC.columns[0], heading="gain", less="a")))
    values = {"a": [1.0, 2.0, 4.0], "b": [3.0, 5.0, 8.0]}
    records = [row for label in values for t in range(3) for row in complete(f"{label} {t} 7", score=values[label][t])]
    rows = cells_of(render(spec, records, layout=star("a", "b", "c"), format="md"))
    assert (rows["a"][1], rows["b"][1]) == ("<u>0.00 ± 0.00</u>", "**3.00 ± 1.00**")
    without = [row for row in records if row.cell != "a 1 7"]
    text = render(spec, without, layout=star("a", "b"), format="md")
    assert cells_of(text)["b"][1].startswith("**3.00 ± 1.41** (")
    assert "2 of 3 token seeds (token seed 1: of a: not run yet)" in text
    lines = frame(render(spec, without, layout=star("a", "b"), format="csv"))
    assert [row["less"] for row in lines] == ["", "a", "", "a"]


# Machines


def on(device: str, records: list[Record]) -> list[Record]:
    return [replace(record, device=device) for record in records]


def test_machines_are_never_ranked_together() -> None:
    spec = replace(SPEC, columns=SPEC.columns[1:2], by_machine=True)
    slow, fast = "cpu, one thread: Old", "cuda: NVIDIA H200"
    records = on(slow, [*complete("a", loss=30), *complete("b", loss=20)])
    records += on(fast, [*complete("c", loss=2), *complete("d", loss=1)])
    text = render(spec, records, layout=layout_of("a", "b", "c", "d", "later"), format="md")
    lines = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| ")]
    assert lines[2:] == [
        ["s, cpu 1", "a", "<u>30.0</u>"],
        ["", "b", "**20.0**"],
        ["", "later", "— (a)"],
        ["s, cuda 2", "c", "<u>2.0</u>"],
        ["", "d", "**1.0**"],
    ]
    assert "- s, cpu 1: `blocks.0.mlp.fc1` of vit on shapes; measured on cpu, one thread: Old\n" in text
    assert "measured on cuda: NVIDIA H200\n" in text
    rows = frame(render(spec, records, layout=layout_of("a", "d"), format="csv"))
    assert [(row["label"], row["machine"]) for row in rows] == [("a", slow), ("d", fast)]
    one = render(spec, records, layout=layout_of("a", "b"), format="md")
    assert "| s, cpu | a " in one


def test_a_row_of_two_machines_stands_with_each_and_lacks_the_other_s_seeds() -> None:
    spec = replace(SPEC, columns=SPEC.columns[1:2], by_machine=True)
    records = on("cpu: A", [*complete("a0", loss=3), *complete("a1", loss=5)]) + on("cpu: B", complete("a2", loss=1))
    text = render(spec, records, layout=layout_of("a", n_seeds=3), format="md")
    lines = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| ")]
    assert lines[2:] == [["s, cpu 1", "a", "4.0 ± 1.4 (a)"], ["s, cpu 2", "a", "1.0 (b)"]]
    assert "- (a) 2 of 3 token seeds (token seed 2: measured on another machine)\n" in text
    assert "- (b) 1 of 3 token seeds (token seeds 0, 1: measured on another machine)\n" in text


def test_before_anything_is_measured_there_is_no_machine() -> None:
    text = render(EFFICIENCY, [], layout=layout_of("a"), format="md")
    assert "| s    | a " in text
    assert "not run yet" in text


# The paper's figures


def printed(table: str, label: str, spec: TableSpec = LEADERBOARD) -> list[str]:
    """What stands under the paper's headings in a row of a table with one label."""
    rows = cells_of(render(spec, [], layout=layout_of(label), format="md"))
    return [cell for heading, cell in zip(rows["method"], rows[label], strict=True) if heading.startswith(table)]


def test_the_paper_s_figures_stand_beside_ours() -> None:
    assert printed("paper:", "elude") == ["1 / 1", "64.85 / 71.05"]
    assert printed("paper:", "pure") == ["", ""]
    assert printed("paper:", "elude", STRUCTURE) == ["0.9334 ± 0.0308", "739.6 ± 0.06", "100 ± 0.0000"]
    assert printed("paper:", "elude", EFFICIENCY) == ["437.73 ± 4.22", "1.149", "577.49 ± 5.30"]
    assert printed("paper:", "umap", ABLATIONS) == ["54.24", "-8.48"]
    assert printed("paper:", "min_cluster_size_4", ABLATIONS) == ["61.09", "-1.63"]
    assert "- paper: Table 7 of" in render(ABLATIONS, [], layout=layout_of("umap"), format="md")
    rows = frame(render(LEADERBOARD, [], layout=layout_of("elude"), format="csv"))
    assert (rows[0]["paper_dinov2_vit_b14"], rows[0]["paper_augreg_vit_b16"]) == ("1.0", "1.0")
    assert rows[1]["paper_dinov2_vit_b14"] == ""
    assert (rows[2]["paper_dinov2_vit_b14"], rows[2]["paper_augreg_vit_b16"]) == ("64.85", "71.05")
    assert next(row for row in rows if row["metric"] == "r2")["paper_augreg_vit_b16"] == "100.0"


@pytest.mark.parametrize(
    ("ours", "theirs", "decimals", "said"),
    [(427.9, "427.95", 1, "-0.1"), (5665.2, "5664.75", 0, "0"), (2.0, "1.5", 0, "+1"), (1.0, "1.5", 0, "-1")],
)
def test_a_difference_is_of_the_whole_printed_number_and_rounded_once(
    ours: float, theirs: str, decimals: int, said: str
) -> None:
    assert difference(ours, Decimal(theirs), decimals) == said


def test_what_is_rounded_of_the_paper_s_is_rounded_as_it_is_printed() -> None:
    assert str(rounded(Decimal("427.95"), 1)) == "428.0"  # in binary that number is smaller, and gives 427.9
    assert printed("paper: times", "topk_sae", EFFICIENCY) == ["1.119"]


@pytest.mark.parametrize("spec", [one for one in TABLES.values() if isinstance(one, TableSpec) and one.published])
def test_what_is_not_worked_out_stands_digit_for_digit_as_in_the_file(spec: TableSpec) -> None:
    source = spec.published
    assert source is not None
    n_looked_at = 0
    for column in spec.columns:
        figure = source.figures.get(column.heading)
        if figure is None or figure.scale != 1 or figure.less or figure.over:
            continue
        for row in rows_of(source.file):
            places = source.sites or {"s": source.where[0]}
            for site in (site for site, where in places.items() if where.items() <= row.items()):
                wanted = row[figure.column]
                if figure.spread and row[figure.spread]:
                    wanted += f" ± {row[figure.spread]}"
                labels = [label for label, key in source.keys.items() if key == row[source.key]] or [row[source.key]]
                assert published_as(source, column, site, labels[0]).split(" / ")[0] == wanted
                n_looked_at += 1
    assert n_looked_at >= 10


def test_a_figure_that_the_paper_leaves_out_is_left_out() -> None:
    published = Published(
        "table2.csv", "", "method", {"x": Figure("ms_score_std")}, where=({"backbone": "dinov2_vit_b14"}, {})
    )
    column = Column("x", "x", "none", 2, 1, "1")
    assert figures(published, column, "a", "backbone") == (None, None)
    assert published_as(published, column, "a", "backbone") == ""
    assert published_as(published, column, "a", "elude") == "0.52 / 0.06"
    assert figures(published, Column("y", "y", "none", 2, 1, "1"), "a", "elude") == ()


@pytest.mark.parametrize("spec", [one for one in TABLES.values() if isinstance(one, TableSpec) and one.published])
def test_every_figure_names_a_column_of_ours_and_one_of_the_paper_s(spec: TableSpec) -> None:
    assert spec.published is not None
    assert (FOLDER / spec.published.file).is_file()
    rows = rows_of(spec.published.file)
    keys = {row[spec.published.key] for row in rows}
    assert set(spec.published.figures) <= {column.heading for column in spec.columns}
    assert set(spec.published.keys.values()) <= keys
    for figure in spec.published.figures.values():
        assert figure.column in rows[0]
        assert {figure.less, figure.over} - {None} <= keys
    for where in spec.published.where:
        assert any(where.items() <= row.items() for row in rows)


# Plans


def plan(**changes: Any) -> dict[str, Any]:
    """The plan of a run of one cell."""
    return {
        "suite": "tiny",
        "sites": [{"label": "s", "dataset": "shapes", "backbone": "vit", "module": "fc"}],
        "labels": ["l"],
        "references": [],
        "token_seeds": [0],
        "init_seeds": [0],
        "metrics": ["r2"],
        "cells": [{"id": "c", "name": "s/l/t0/i0", "site": "s", "label": "l", "token_seed": 0, "init_seed": 0}],
        **changes,
    }


def test_a_table_shows_what_the_run_measures_and_says_where_that_is_nothing() -> None:
    layout = layout_of_plan(plan())
    assert cells_of(render(LEADERBOARD, [], layout=layout, format="md"))["method"] == ["R2 (%) ↑"]
    with pytest.raises(ValueError, match=r"'probes' of a run that measures none .*one of probe_outputs, "):
        render(find_table("probes"), [], layout=layout, format="md")


QUICK = Path(__file__).parent.parent / "results" / "quick"


@pytest.mark.parametrize("format", ["md", "csv"])
@pytest.mark.parametrize("name", ["ground_truth", "probes", "properties", "paper-table1", "efficiency", "verdicts"])
def test_a_run_of_something_else_has_no_table_of_it(name: str, format: str) -> None:
    layout = layout_of_plan(read_plan(QUICK))  # it measures MS-Score, top-1 and L0, which stand beside the subject
    with pytest.raises(NothingToShowError, match=f"got '{name}' of a run that measures none of its metrics; expected"):
        render(find_table(name), [], layout=layout, format=format)


def test_differences_from_a_method_need_variants_of_it() -> None:
    layout = replace(layout_of("a", "elude", "eom", n_seeds=1), measured=frozenset({"ms_score"}))
    of = {"a": "topk_sae", "elude": "elude", "eom": "elude"}

    def table(*labels: str) -> str:
        rows = [replace(row, label=one, method=of[one]) for one in labels for row in complete(f"{one} 0")]
        return render(ABLATIONS, rows, layout=replace(layout, labels=labels), format="md")

    assert "against baseline" in table("a", "elude", "eom")
    for labels in (("a", "elude"), ("a", "eom"), ("elude",)):
        with pytest.raises(NothingToShowError, match="of a run without variants of 'elude'; expected that method"):
            table(*labels)
    unfinished = [replace(row, label="elude", method="elude") for row in complete("elude 0")]
    assert "not run yet" in render(ABLATIONS, unfinished, layout=layout, format="md")


def test_metrics_of_plugins_are_columns_of_the_leaderboard_and_others_are_in_its_csv() -> None:
    told = {"name": "sharpness", "unit": "dB", "direction": "up"}
    layout = layout_of_plan(plan(metrics=["r2", "sharpness", "dead_share"], plugin_metrics=[told]))
    one = {"kind": "value", "cell": "c", "interval": "exact", "n": 1}
    records = [
        Record(metric="sharpness", value=1.5, unit="dB", **PROVENANCE | one),
        Record(metric="dead_share", value=25.0, unit="%", **PROVENANCE | one),
        ending("c"),
    ]
    rows = cells_of(render(LEADERBOARD, records, layout=layout, format="md"))
    assert rows["method"] == ["R2 (%) ↑", "sharpness (dB) ↑"]
    assert rows["l"][1] == "1.500"
    csv_rows = {row["metric"]: row["mean"] for row in frame(render(LEADERBOARD, records, layout=layout, format="csv"))}
    assert csv_rows == {"r2": "", "sharpness": "1.5", "dead_share": "25.0"}
    assert ROWS["dead_share"].unit == "%"


def test_comparisons_of_a_plan_are_found_shown_and_counted(tmp_path: Path) -> None:
    compared = plan(
        init_seeds=[0, 1],
        comparisons=[{"site": "s", "label": "l", "id": "d"}],
        cells=[
            *plan()["cells"],
            {"id": "e", "name": "s/l/t0/i1", "site": "s", "label": "l", "token_seed": 0, "init_seed": 1},
        ],
    )
    layout = layout_of_plan(compared)
    assert layout.comparisons == {("s", "l"): "d"}
    assert layout.expected("init_seeds", "s", "l") == [("0", "c"), ("1", "e")]
    records = [
        Record(kind="value", cell="d", metric="stability", value=0.5, unit="1", interval="exact", n=3, **PROVENANCE)
    ]
    records += [ending("d")]
    rows = cells_of(render(STRUCTURE, records, layout=layout, format="md"))
    assert rows["l"][:2] == ["0.500", ""]
    assert states(compared, {"d": records}) == [
        ("s/l/t0/i0", "c", "to do"),
        ("s/l/t0/i1", "e", "to do"),
        ("s/l/stability", "d", "complete"),
    ]
    write_plan(tmp_path, compared)
    assert "not run yet" in rendered(tmp_path, "leaderboard", "md")

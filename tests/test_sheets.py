"""One sheet, four formats: what stands in a cell, what is escaped, what stands beside the paper's number."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_tables import SPEC, cells_of, complete, ending, layout_of, measured

from bench.folder import layout_of as layout_of_plan
from bench.folder import read_plan
from results.filling import row_name
from results.latex import PACKAGES, escape
from results.layout import Layout, Site, TableSpec
from results.markdown import aligned
from results.paper import PAPER_TABLE1, PAPER_TABLE2, PAPER_TABLE5, PAPER_TABLE9, PAPER_TABLES
from results.records import Record
from results.specs import LEADERBOARD, STRUCTURE, VERDICTS
from results.sweeps import SWEEPS
from results.tables import TABLES, render

RESULTS = Path(__file__).resolve().parent.parent / "results"
ODD = '"><script>alert(1)</script>&_%$#{}~^\\|`*[x] --é中'


class Page(HTMLParser):
    """Every element with its attributes, and the text in between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def odd() -> tuple[list[Record], Layout]:
    """A layout in which every text that comes from outside is awkward."""
    layout = layout_of(ODD, "a", "b")
    site = Site("s", ODD, ODD, ODD, warnings=(ODD,))
    records = [*complete("a", score=1 / 3), *complete("b", score=0.25), ending(ODD, f"Error: {ODD}")]
    return records, replace(layout, sites=(site,))


def test_a_page_shows_what_comes_from_outside_as_text(odd: tuple[list[Record], Layout]) -> None:
    page = Page(render(SPEC, odd[0], layout=odd[1], format="html"))
    assert page.open == []
    assert not page.of("script")
    said = "".join(text for _, text in page.said)
    assert said.count("<script>alert(1)</script>") >= 4  # label, module, warning, footnote
    assert ODD in {row["data-label"] for row in page.of("tr") if "data-label" in row}


def test_a_page_is_told_what_rows_and_cells_stand_for(odd: tuple[list[Record], Layout]) -> None:
    records = [*odd[0], measured("a", "loss", 2.0)]
    expansion = replace(measured("a", "loss", 7.5), metric="expansion_factor", unit="1")
    layout = replace(odd[1], references=frozenset({"b"}))
    page = Page(render(SPEC, [*records, expansion], layout=layout, format="html"))
    (table,) = page.of("table")
    assert table == {"class": "sheet", "data-table": "small"}
    rows = {row["data-label"]: row for row in page.of("tr") if "data-label" in row}
    assert [rows[label]["data-reference"] for label in ("a", "b")] == ["false", "true"]
    assert (rows["a"]["data-expansion"], rows["b"]["data-expansion"]) == ("7.5", "")
    assert {rows["a"][f"data-{name}"] for name in ("backbone", "dataset", "module")} == {ODD}
    values = [cell["data-value"] for cell in page.of("td") if "data-value" in cell]
    assert values == ["", "", "", repr(1 / 3), "2.0", "", "0.25", "", ""]
    assert {head["scope"] for head in page.of("th")} == {"col", "row"}
    assert page.tags[0][1]["class"] == "warning"
    assert [attributes["data-direction"] for attributes in page.of("th") if "data-direction" in attributes] == [
        "up", "down", "none"
    ]  # fmt: skip


def test_marks_and_footnotes_are_the_same_in_every_format() -> None:
    records = [*complete("a", score=3), *complete("b", score=2), *complete("base", score=9), ending("c", "E")]
    layout = layout_of("base", "a", "b", "c", references=frozenset({"base"}))
    texts = {form: render(SPEC, records, layout=layout, format=form) for form in ("md", "tex", "html")}
    for form, marks in {
        "md": ("**3.00**", "<u>2.00</u>", "*9.00*", "— (b)", "- (b) failed: E"),
        "tex": (
            r"\textbf{3.00}",
            r"\underline{2.00}",
            r"\textit{9.00}",
            r"\textemdash{}\textsuperscript{b}",
            "failed: E",
        ),
        "html": ("<strong>3.00</strong>", "<u>2.00</u>", "<em>9.00</em>", "—<sup>(b)</sup>", "(b) failed: E"),
    }.items():
        assert all(mark in texts[form] for mark in marks), form


def test_no_column_of_markdown_is_too_narrow_for_its_rule() -> None:
    rule = aligned([["a", "n"], ["b", "1"]], n_words=1)[1]
    assert rule == "| --- | --: |"  # GitHub reads no table where a colon stands without a hyphen


def test_latex_keeps_every_special_character_as_text() -> None:
    assert escape(r"a_b & 50 % of $x$ #1 {y} ~ ^ \cmd") == (
        r"a\_b \& 50 \% of \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}cmd"
    )
    assert escape("--") == "-{}-"
    assert escape("中\n\x00") == "(U+4E2D) (U+0000)"
    assert escape("ğ é") == "ğ é"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex; Debian has it in texlive-latex-extra")
def test_awkward_texts_compile(odd: tuple[list[Record], Layout], tmp_path: Path) -> None:
    text = render(SPEC, odd[0], layout=odd[1], format="tex")
    head = rf"\documentclass{{article}}\usepackage[T1]{{fontenc}}\usepackage{{{','.join(PACKAGES)}}}\begin{{document}}"
    (tmp_path / "odd.tex").write_text(f"{head}\n{text}\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "odd.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:]


@pytest.mark.parametrize("format", ["tex", "html", "md", "csv"])
@pytest.mark.parametrize("name", sorted(set(TABLES) - {SWEEPS.name}))
def test_every_table_has_every_format_without_a_record(name: str, format: str) -> None:
    text = render(TABLES[name], [], layout=layout_of("backbone", "elude"), format=format)
    assert text.endswith("\n")
    assert ("not run yet" in text) or ("not " in text)
    assert "nan" not in text.lower().split()


# Beside the paper


def with_values(spec_metric: str, unit: str, **values: float) -> list[Record]:
    return [
        row
        for label, value in values.items()
        for row in (replace(measured(label, "score", value), metric=spec_metric, unit=unit), ending(label))
    ]


def test_the_paper_s_number_and_the_difference_stand_in_the_cell() -> None:
    layout = replace(layout_of("elude", "mine"), sites=(Site("dinov2_vitb14", "i", "d", "m"),))
    layout = replace(layout, cells={("dinov2_vitb14", label, 0, 7): label for label in ("elude", "mine")})
    records = with_values("ms_score", "%", elude=70.0, mine=60.0)
    text = render(PAPER_TABLE2, records, layout=layout, format="md")
    rows = cells_of(text)
    at = rows["Method"].index("Interpretability: MS-Score (%) ↑")
    assert rows["ELUDe (ours)"][at] == "**70.00** (paper 64.85 ± 0.52, +5.15)"
    assert re.fullmatch(r"<u>60\.00</u> \([a-z]\) \(paper –\)", rows["mine"][at])
    assert "the paper has no such number" in text
    assert "DINOv2 ViT-B/14" in text
    plain = cells_of(render(PAPER_TABLE2, records, layout=layout, format="md", beside="nothing"))
    assert plain["ELUDe (ours)"][at] == "**70.00**"


def test_where_the_figures_stand_can_be_chosen_and_csv_is_as_ever() -> None:
    records, layout = with_values("coherence_paper", "%", elude=90.0), layout_of("elude")
    columns, cells, none = (
        render(STRUCTURE, records, layout=layout, format="md", beside=one) for one in ("column", "cell", "nothing")
    )
    assert columns == render(STRUCTURE, records, layout=layout, format="md")
    assert "paper: coherence" in columns
    assert "90.00 (paper 100 ± 0.0000, -10.00)" in cells
    assert "paper" not in none.splitlines()[2].replace("coherence, paper's", "")
    once, twice = (render(STRUCTURE, records, layout=layout, format="csv", beside=one) for one in ("cell", None))
    assert once == twice


@pytest.mark.parametrize("run", [path.parent for path in sorted(RESULTS.glob("*/run.json"))], ids=lambda run: run.name)
def test_no_two_rows_of_a_site_are_called_the_same(run: Path) -> None:
    layout = layout_of_plan(read_plan(run))
    for spec in PAPER_TABLES:
        if isinstance(spec, TableSpec):
            names = [(site.label, row_name(spec, site, label)) for site, label in layout.rows()]
            assert len(set(names)) == len(names) > 0


def test_rows_of_one_method_have_names_of_their_own() -> None:
    layout = layout_of("transcoder", "transcoder_d_in")
    rows = cells_of(render(PAPER_TABLE5, [], layout=layout, format="md"))
    assert {"Transcoder", "Transcoder (inputs' width)"} <= set(rows)


def test_of_two_figures_both_differences_are_told() -> None:
    text = render(
        LEADERBOARD, with_values("ms_score", "%", elude=70.0), layout=layout_of("elude"), format="md", beside="cell"
    )
    assert "70.00 (paper 64.85 / 71.05, +5.15 / -1.05)" in text


# Tables 1 and 9 of a run


def test_a_property_that_the_paper_has_otherwise_is_bold() -> None:
    records = with_values("gradient_steps", "steps", elude=5.0, pure=0.0)
    rows = cells_of(render(PAPER_TABLE1, records, layout=layout_of("elude", "pure", "mine"), format="md"))
    at = rows["Method"].index("Training-free")
    assert rows["ELUDe (ours)"][at] == "**✗ (5)** (paper ✓)"
    assert rows["PURE"][at] == "✓ (paper ✓)"
    assert rows["mine"][at].startswith("— (")


def test_the_options_of_a_run_stand_beside_the_factor_that_they_led_to() -> None:
    layout = replace(layout_of("elude"), sites=(Site("b14_ef16", "i", "dinov2_vitb14", "layer 12"),))
    layout = replace(layout, cells={("b14_ef16", "elude", 0, 7): "elude"})
    options = {"top_k": 400_000, "min_cluster_size": 1000}
    records = [replace(one, options=options) for one in with_values("expansion_factor", "1", elude=12.0)]
    text = render(PAPER_TABLE9, records, layout=layout, format="md")
    (row,) = [line for line in text.splitlines() if line.startswith("| b14_ef16")]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "b14_ef16", "layer 12", "400k (paper 400k)", "default (paper min_cluster_size = 750)",
        "12.00 (paper 11.41, +0.59)",
    ]  # fmt: skip
    assert "b14_ef16,dinov2_vitb14,layer 12,elude,400000,1000,12.0" in render(
        PAPER_TABLE9, records, layout=layout, format="csv"
    )
    with pytest.raises(ValueError, match=r"without a method of the label 'elude'; expected one"):
        render(PAPER_TABLE9, [], layout=layout_of("a"), format="md")


# Pools


def test_verdicts_of_two_pools_never_share_a_column() -> None:
    layout = replace(layout_of("a", "b"), verdicts={("llm_panel", "s", label): f"v{label}" for label in "ab"})

    def verdicts(*pools: str) -> list[Record]:
        found = [complete(f"v{label}", score=50.0) for label in "ab"]
        return [
            replace(row, metric="llm_win_rate" if row.kind == "value" else row.metric, notes={"pool": pool})
            for rows, pool in zip(found, pools, strict=True)
            for row in rows
        ]

    text = render(VERDICTS, verdicts("p", "p"), layout=layout, format="md")
    assert "50.00" in text
    for format in ("md", "csv", "html"):
        with pytest.raises(ValueError, match=r"pool: got verdicts of 2 pools at s: p \(a\), q \(b\); expected one"):
            render(VERDICTS, verdicts("p", "q"), layout=layout, format=format)

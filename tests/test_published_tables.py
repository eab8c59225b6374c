"""The paper's tables from its printed numbers alone: golden files, its own marks, LaTeX that compiles, corrections.

As a program this file writes the golden files again: `python tests/test_published_tables.py`.
"""

import shutil
import subprocess
from math import comb
from pathlib import Path

import pytest

from results import forms
from results.forms import FORMS, TWO_SEEDS
from results.latex import PACKAGES
from results.layout import PaperForm
from results.printed import printed_sheet
from results.published import FOLDER, rows_of
from results.sheets import DASH, Sheet
from results.specs import LEADERBOARD
from results.tables import find_table, render_published

GOLDENS = Path(__file__).parent / "goldens"
NAMES = [f"paper-table{form.number}" for form in FORMS]
PDFLATEX = shutil.which("pdflatex")


def sheet(number: int) -> Sheet:
    form = next(form for form in FORMS if form.number == number)
    return printed_sheet(form, f"paper-table{number}")


def marked(number: int) -> set[tuple[str, str, str]]:
    """Row, heading and mark of everything that is marked, references aside."""
    return {
        (row.words[-1], heading.text, cell.mark)
        for group in sheet(number).groups
        for row in group.rows
        for heading, cell in zip(sheet(number).headings, row.cells, strict=True)
        if cell.mark not in ("", "reference")
    }


@pytest.mark.parametrize("format", ["md", "tex"])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_the_paper_is_its_golden_file(name: str, format: str) -> None:
    golden = (GOLDENS / f"{name}.{format}").read_bytes()
    assert render_published(find_table(name), format).encode() == golden


def test_there_is_a_form_for_every_table_but_the_eighth() -> None:
    assert [form.number for form in FORMS] == [1, 2, 3, 4, 5, 6, 7, 9]
    assert {path.name for path in GOLDENS.iterdir()} == {f"{name}.{end}" for name in NAMES for end in ("md", "tex")}


@pytest.mark.parametrize("name", NAMES)
def test_as_csv_it_is_the_file_itself(name: str) -> None:
    number = name.removeprefix("paper-table")
    assert render_published(find_table(name), "csv") == (FOLDER / f"table{number}.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form.number))
def test_every_number_of_a_file_stands_in_its_table_as_it_is_printed(form: object) -> None:
    assert isinstance(form, PaperForm)
    lines = [[cell.text for cell in row.cells] for group in sheet(form.number).groups for row in group.rows]
    for row, texts in zip(rows_of(form.file), lines, strict=True):
        for column, text in zip(form.columns, texts, strict=True):
            low, high = column.ends or ("", "")
            printed = form.name(row[column.column])
            if column.ends:
                printed = f"[{row[low]}, {row[high]}]"
            elif column.spread and row[column.spread]:
                printed += f" ± {row[column.spread]}"
            assert text == (printed or DASH)


# Marks


def test_bold_is_what_the_paper_has_bold_where_a_table_is_short() -> None:
    best = {
        number: {(row, heading) for row, heading, mark in marked(number) if mark == "best"} for number in range(2, 8)
    }
    ours = "ELUDe (ours)"
    assert best[2] == {
        (ours, "LLM Rank"),
        (ours, "MS-Score"),
        (ours, "Accuracy"),
        (ours, "R²"),
        ("JumpReLU", "Accuracy"),
    }
    assert best[3] == {(ours, "Consensus win rate (%)")}
    assert best[4] == {
        (ours, "Cross-Init Sim."), ("JumpReLU", "Eff. Rank"), ("Archetypal SAE", "Coherence"), (ours, "Coherence")
    }  # fmt: skip
    assert best[5] == {("Vanilla SAE", "ms/batch"), (ours, "Peak mem MB")}
    assert best[7] == {(ours, "MS-Score")}


def test_marks_of_the_paper_that_follow_from_no_rule_are_told() -> None:
    (told,) = [one[0].text for one in sheet(6).remarks if one[0].text.startswith("The paper's own marks")]
    bold, underlined = told.split("Underlined there")
    assert bold.count(";") == 5
    for place in (
        "Matryoshka SAE, Accuracy, DINOv2 ViT-B/14 layer 10",
        "Archetypal SAE, Accuracy, DINOv2 ViT-B/14 layer 11",
        "BatchTopK-SAE, R², ConvNeXtV2-Base",
    ):
        assert place in bold
    assert "Matching Pursuit, MS-Score, DINOv2 ViT-B/14 layer 12 EF4" in underlined
    assert not any("own marks" in one[0].text for one in sheet(9).remarks)


def test_marks_name_places_that_there_are() -> None:
    by_number = {str(form.number): form for form in FORMS}
    for mark in rows_of("marks.csv"):
        form = by_number[mark["table"]]
        of_group = [row for row in rows_of(form.file) if not mark["group"] or row[form.by[-1]] == mark["group"]]
        (row,) = [row for row in of_group if row[form.key] == mark["row"]]
        assert row[mark["column"]]
        assert mark["mark"] in ("bold", "underlined")


# Corrections


@pytest.mark.parametrize(
    ("backbone", "divisor", "total"), [("dinov2_vit_b14", 1800, 9000), ("augreg_vit_b16", 2700, 13500)]
)
def test_the_rates_are_of_as_many_token_seeds_as_the_remark_says(backbone: str, divisor: int, total: int) -> None:
    rates = [float(row["win_rate"]) for row in rows_of("table3.csv") if row["backbone"] == backbone]
    counts = [round(rate / 100 * divisor) for rate in rates]
    assert [round(100 * count / divisor, 2) for count in counts] == rates
    assert sum(counts) == total
    assert f"1/{divisor}" in TWO_SEEDS
    assert f"{total:,}" in TWO_SEEDS


@pytest.mark.parametrize(("backbone", "n_seeds"), [("dinov2_vit_b14", 2), ("augreg_vit_b16", 3)])
def test_the_counts_are_those_of_every_presentation(backbone: str, n_seeds: int) -> None:
    rates = [float(row["win_rate"]) for row in rows_of("table3.csv") if row["backbone"] == backbone]
    n_of_a_pair = 50 * 2 * n_seeds  # unit pairs in both orders
    n_of_a_method = (len(rates) - 1) * n_of_a_pair
    assert sum(round(rate / 100 * n_of_a_method) for rate in rates) == comb(len(rates), 2) * n_of_a_pair
    assert f"{comb(len(rates), 2)} pairs of methods" in " ".join(forms.TABLE3.remarks)
    assert f"{comb(len(rates), 2) * n_of_a_pair:,}" in " ".join(forms.TABLE3.remarks)


def test_whose_deviation_reaches_the_baseline_is_said_of_table_7() -> None:
    rows = {row["ablation"]: (float(row["ms_score"]), float(row["ms_score_std"])) for row in rows_of("table7.csv")}
    at, deviation = rows.pop(forms.BASELINE)
    reaching = [name for name, (score, own) in rows.items() if at - score <= own]
    assert reaching == ["Min Cluster Size = 500", "Min Samples = 500"]
    assert f"within one standard deviation of {' and of '.join(reaching)}, by the" in forms.TABLE7.remarks[0]
    assert at - rows[reaching[0]][0] > deviation  # which is why it is not said of the baseline's own


def test_dinov2_rates_are_not_those_of_three_token_seeds() -> None:
    rates = [float(row["win_rate"]) for row in rows_of("table3.csv") if row["backbone"] == "dinov2_vit_b14"]
    assert any(round(100 * round(rate * 27) / 2700, 2) != rate for rate in rates)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (2, "does not say which variant"),
        (2, "1/1800"),
        (3, "resampling single presentations"),
        (4, "the wrong way round"),
        (5, "808 MB"),
        (6, "5.91 at layer 11"),
        (7, "within one standard deviation"),
    ],
)
def test_what_has_to_be_known_of_a_table_stands_below_it(number: int, said: str) -> None:
    assert said in render_published(find_table(f"paper-table{number}"), "md")


def test_what_is_not_the_paper_s_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"table: got 'leaderboard', which is not the paper's; expected one of paper-table1"
    ):
        render_published(LEADERBOARD, "md")
    with pytest.raises(ValueError, match=r"format: got 'pdf'; expected one of csv, html, md, tex"):
        render_published(find_table("paper-table2"), "pdf")


@pytest.mark.skipif(PDFLATEX is None, reason="there is no pdflatex; Debian has it in texlive-latex-extra")
def test_all_tables_compile_in_one_document(tmp_path: Path) -> None:
    tables = "".join(render_published(find_table(name), "tex") for name in NAMES)
    head = rf"\documentclass{{article}}\usepackage[T1]{{fontenc}}\usepackage{{{','.join(PACKAGES)}}}\begin{{document}}"
    (tmp_path / "all.tex").write_text(f"{head}\n{tables}\\end{{document}}\n", encoding="utf-8")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "too large" not in done.stdout
    assert "Overfull \\hbox" not in done.stdout


if __name__ == "__main__":
    GOLDENS.mkdir(exist_ok=True)
    for name in NAMES:
        for end in ("md", "tex"):
            (GOLDENS / f"{name}.{end}").write_text(render_published(find_table(name), end), encoding="utf-8")

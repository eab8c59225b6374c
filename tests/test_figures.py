"""Figures draw what the records say, say what is missing, and come out the same to the last byte."""

import hashlib
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import style
from matplotlib.figure import Figure
from skimage.color import rgb2lab
from test_judge_report import LABELS, PROXIES, QUICK, VLMS, made
from test_tables import complete, ending, layout_of, measured
from typer.testing import CliRunner

from bench import UsageError
from bench.cli import app
from bench.figure_commands import figures_of, material_of, rendered_figure
from bench.findings_of_panels import finding_of
from judges.report import Report, as_json, report
from results.charts import Axis, Chart, Mark, Matrix, Number, Plane, Rows, described, front_of
from results.figures import FIGURES, FORMATS, WIDTHS, NothingToDrawError, chart, drawn
from results.layout import Column, Layout
from results.panels import Finding
from results.plots import LOOK, SIZE, figure_of, to_bytes
from results.plots_matrix import DIVERGING, luminance, readable_on
from results.plots_panels import COLORS, MARKERS, REFERENCE_MARKERS
from results.published import rows_of
from results.records import Record
from results.specs import ABLATIONS, EFFICIENCY, STRUCTURE
from results.summaries import summarise

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    "quick": ["pareto", "forest", "sweeps"],
    "full": ["pareto", "stability", "sweeps"],
    "efficiency": ["efficiency", "sweeps"],
    "ablations": ["pareto", "ablations", "robustness"],
}
DISTINCT = [
    ("quick", "pareto"),
    ("quick", "forest"),
    ("quick", "sweeps"),
    ("full", "stability"),
    ("efficiency", "efficiency"),
    ("ablations", "ablations"),
    ("ablations", "robustness"),
]
PAIR = (Column("score", "score", "up", 2, 1, "%"), Column("loss", "loss", "down", 1, 1, "1"))


@pytest.fixture(scope="module", name="panel")
def a_panel() -> Finding:
    return finding_of(told(made(VLMS, QUICK)), "llm_panel")


def told(report: Report) -> dict[str, Any]:
    return {"run": {"site": "s", "panel": "three"}, **as_json(report)}


def figure(of: Chart, width: str = "page") -> Figure:
    with style.context(LOOK, after_reset=True):
        return figure_of(of, WIDTHS[width])


@cache
def run_of(name: str) -> Any:
    return material_of(ROOT / "results" / name)


def layout(*labels: str, **changes: Any) -> Layout:
    return replace(layout_of(*labels), others=PAIR, **changes)


def records(**values: tuple[float, float]) -> list[Record]:
    return [row for label, (x, y) in values.items() for row in complete(label, score=x, loss=y)]


# Bytes


@pytest.mark.parametrize("format", FORMATS)
def test_the_order_of_the_records_changes_no_byte(format: str) -> None:
    material = run_of("ablations")
    rows = list(material["records"])
    random.Random(0).shuffle(rows)
    first, second = (drawn("ablations", **material | {"records": one}, format=format) for one in (rows, rows[::-1]))
    assert first == second
    assert b"20" + b"26-" not in first  # no date


def test_two_processes_draw_the_same_bytes() -> None:
    script = (
        "import hashlib; from results.figures import FORMATS, drawn\n"
        "for one in FORMATS: print(hashlib.sha256(drawn('pareto', beside='published', format=one)).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    own = [hashlib.sha256(drawn("pareto", beside="published", format=one)).hexdigest() for one in FORMATS]
    assert done.stdout.split() == own


# Every figure, of every committed run


@pytest.mark.parametrize("run", RUNS)
def test_each_run_has_the_figures_that_it_has_data_for(run: str) -> None:
    assert figures_of(ROOT / "results" / run) == RUNS[run]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("run", "name"), DISTINCT)
def test_no_text_is_small_or_leaves_the_page(run: str, name: str, width: str) -> None:
    drawing = figure(chart(name, **run_of(run)), width)
    drawing.draw_without_rendering()
    page = drawing.bbox
    texts = [*drawing.texts, *(text for legend in drawing.legends for text in legend.get_texts())]
    for axes in drawing.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        texts += [axes.title, *axes.get_yticklabels()] if axes.get_ylim()[0] > axes.get_ylim()[1] else [axes.title]
    texts = [text for text in texts if text.get_text().strip()]
    assert len(texts) > 5
    for text in texts:
        assert float(text.get_fontsize()) >= SIZE
        box = text.get_window_extent()
        gaps = (box.x0 - page.x0, page.x1 - box.x1, box.y0 - page.y0, page.y1 - box.y1)
        assert min(gaps) >= -2, text.get_text()


def test_a_figure_says_in_words_what_it_shows() -> None:
    folder = ROOT / "results" / "quick"
    root = ET.fromstring(rendered_figure(folder, "pareto", "svg"))
    title, desc = (root.findtext(f"{{http://www.w3.org/2000/svg}}{name}") or "" for name in ("title", "desc"))
    assert title == "Faithfulness and interpretability"
    assert desc == described(chart("pareto", **material_of(folder)))
    assert "Front: elude." in desc
    assert "; elude 100 [100, 100], 71.47 [70.59, 72.34], expansion 6.76." in desc
    assert "Missing: pure, dnrwcv at shapes, photos: virtual units" in desc


# Numbers


def test_the_points_of_a_plane_are_the_numbers_of_the_summaries() -> None:
    material = run_of("quick")
    of = chart("pareto", **material)
    columns = [Column("r2", "R2", "up", 2, 1, "%"), Column("ms_score", "MS-Score", "up", 2, 1, "%")]
    expected = summarise(columns, material["records"], material["layout"])
    for axes, site in zip(figure(of).axes, ("shapes", "photos"), strict=True):
        points = {
            str(line.get_label()).split(": ")[1]: (line.get_xdata(), line.get_ydata())
            for line in axes.lines
            if str(line.get_label()).startswith(("method: ", "reference: "))
        }
        means = {
            label: tuple(expected[site, label, column].mean for column in columns)
            for label in material["layout"].labels
        }
        assert {label: (x[0], y[0]) for label, (x, y) in points.items()} == {  # type: ignore[index]
            label: pair for label, pair in means.items() if None not in pair
        }
        ends = {tuple(np.atleast_1d(line.get_ydata())) for line in axes.lines}
        summary = expected[site, "vanilla_sae", columns[1]]
        assert (summary.low, summary.high) in ends


@pytest.mark.parametrize(
    ("run", "name", "column", "panel"),
    [
        ("ablations", "ablations", ABLATIONS.columns[0], 0),
        ("ablations", "ablations", ABLATIONS.columns[1], 1),
        ("full", "stability", STRUCTURE.columns[0], 0),
        ("efficiency", "efficiency", EFFICIENCY.columns[0], 0),
    ],
)
def test_the_rows_of_a_list_are_the_numbers_of_the_summaries(run: str, name: str, column: Column, panel: int) -> None:
    material = run_of(run)
    rows = chart(name, **material).panels[panel]
    assert isinstance(rows, Rows)
    expected = summarise([column], material["records"], material["layout"])
    axes = figure(chart(name, **material)).axes[panel]
    points = {str(line.get_label()): np.atleast_1d(line.get_xdata())[0] for line in reversed(axes.lines)}
    for row in rows.rows:
        mean = expected["shapes", row.name, column].mean
        assert (row.numbers[0] is None) == (mean is None)
        if row.numbers[0] is not None:
            assert row.numbers[0].value == pytest.approx(mean, abs=1e-12)
            assert points[row.name] in [one.value for one in row.numbers if one is not None]


POINTS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=9)


@settings(max_examples=200, deadline=None)
@given(POINTS, st.sampled_from(["up", "down"]), st.sampled_from(["up", "down"]))
def test_the_front_is_what_no_other_is_better_than(places: list[tuple[int, int]], across: Any, upwards: Any) -> None:
    marks = [Mark(str(at), "method", Number(float(x)), Number(float(y))) for at, (x, y) in enumerate(places)]
    signs = tuple(1 if way == "up" else -1 for way in (across, upwards))
    scored = [(signs[0] * x, signs[1] * y) for x, y in places]
    best = {
        str(at)
        for at, one in enumerate(scored)
        if not any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in scored)
    }
    found = front_of(marks, Axis("x", across), Axis("y", upwards))
    assert {mark.name for mark in found} == best
    assert [mark.x.value for mark in found] == sorted(mark.x.value for mark in found)
    assert front_of(marks, Axis("x", "none"), Axis("y", upwards)) == ()


def test_references_are_not_on_the_front_and_equal_numbers_share_it() -> None:
    rows = records(a=(99.999, 1.0), b=(100.0, 2.0), best=(100.0, 0.0))
    of = chart("pareto", rows, layout("a", "b", "best", references=frozenset({"best"})), x="score", y="loss")
    plane = of.panels[0]
    assert isinstance(plane, Plane)
    assert [one.name for one in plane.front] == ["a"]  # 99.999 and 100 both print as 100.00, and a has less loss
    assert [one.kind for one in plane.marks] == ["method", "method", "reference"]


def test_a_curve_is_drawn_over_the_one_option_that_differs() -> None:
    base = layout_of("a", "b", sites="xyz")
    rows = []
    for (site, label, *_), cell in base.cells.items():
        noise = {"x": 0.0, "y": 2.0, "z": 1.0}[site]
        options = {"dataset": {"noise": noise, "seed": 5 if site == "z" else 0}}
        shared: dict[str, Any] = {"site": site, "label": label, "site_options": options}
        rows += [replace(row, **shared) for row in complete(cell, score=noise + len(label))]
    of = chart("robustness", rows, replace(base, others=PAIR), y="score")
    (plane,) = of.panels
    assert isinstance(plane, Plane)
    assert plane.x.label == "dataset.noise"
    assert [(one.name, one.x.value, one.y.value) for one in plane.marks] == [
        ("a", 0.0, 1.0),
        ("a", 2.0, 3.0),
        ("b", 0.0, 1.0),
        ("b", 2.0, 3.0),
    ]


# Panels of judges


def test_what_a_panel_found_is_what_its_report_says(panel: Finding) -> None:
    report = made(VLMS, QUICK)
    assert panel.labels == tuple(report.label(one.method) for one in report.ranking.standings)
    assert np.array_equal(np.array(panel.wins), report.ranking.wins)
    for voter, own in zip(panel.voters, report.agreement.voters, strict=True):
        assert voter.first.value == pytest.approx(50 + (own.position_bias.value or 0))
        assert voter.flips.value == own.follows_position.value
    assert panel.alpha.value == report.agreement.alpha.value
    assert [number.value for *_, number in panel.kappas] == [one.value for one in report.agreement.kappas.values()]


def test_the_matrix_shows_shares_and_counts(panel: Finding) -> None:
    of = chart("wins", panels=[panel])
    (matrix,) = of.panels
    assert isinstance(matrix, Matrix)
    (axes,) = figure(of).axes
    texts = {one.get_position(): one.get_text() for one in axes.texts}
    for row in range(3):
        for column in range(3):
            n = panel.wins[row][column] + panel.wins[column][row]
            if row != column:
                shown = f"{100 * panel.wins[row][column] / n:.0f}\n{n}"
                assert texts[column + 0.5, row + 0.5] == shown
                assert (matrix.share(row, column) or 0) + (matrix.share(column, row) or 0) == pytest.approx(100)
    assert "Alpha | one" in LABELS.values()
    assert "Alpha | one" in described(of)


def test_methods_that_never_met_are_named(panel: Finding) -> None:
    alone = replace(panel, wins=((0, 0, 1), (0, 0, 2), (1, 1, 0)))
    assert any("no decided presentation" in note for note in chart("wins", panels=[alone]).notes)


def test_judges_are_drawn_with_what_a_reader_has_to_know(panel: Finding) -> None:
    of = chart("judges", panels=[panel])
    assert [type(one) for one in of.panels] == [Rows] * 4
    assert all(any(warning in note for note in of.notes) for warning in panel.warnings)
    assert drawn("judges", panels=[panel]).startswith(b"<?xml")


def test_a_proxy_panel_says_so_in_every_panel() -> None:
    found = finding_of(told(made(PROXIES, QUICK)), "proxy_panel")
    for name in ("wins", "judges"):
        of = chart(name, panels=[found])
        assert all("proxy panel" in panel.title for panel in of.panels)
        assert "llm rank" not in described(of).lower().replace("_", " ")


def test_a_panel_that_was_asked_nothing_is_drawn_as_such() -> None:
    empty = report([], {"vision": {}}, QUICK, title="", kinds={"vision": "vlm"}, labels={}, easiest="easy")
    found = finding_of(told(empty), "llm_panel")
    for name in ("wins", "judges"):
        assert drawn(name, panels=[found], format="png").startswith(b"\x89PNG")
    assert any("vision" in note and "Missing" in note for note in chart("judges", panels=[found]).notes)


# What is missing, and what is hostile


def test_what_is_missing_is_said_with_its_reason() -> None:
    rows = [*records(a=(1.0, 2.0)), measured("b", "score", None, reason="too few"), ending("b"), ending("c", "E")]
    of = chart("pareto", rows, layout("a", "b", "c", "d"), x="score", y="loss")
    text = " ".join(of.notes)
    for said in ("Missing: b at s: too few (10 of 10)", "b at s: not measured", "c at s: failed: E", "d at s: not run"):
        assert said in text


def test_warnings_of_a_run_stand_in_its_figures() -> None:
    made_of = layout("a")
    warned = replace(made_of, sites=(replace(made_of.sites[0], warnings=("random weights",)),))
    svg = drawn("pareto", records(a=(1.0, 2.0)), warned, x="score", y="loss").decode()
    assert "Warning: these are no results. s: random weights." in "".join(ET.fromstring(svg).itertext())


@pytest.mark.parametrize("name", ['"><b>', "$x_1$", "_hidden", "a&amp;b", "nul\x00and\nline", "<script>"])
def test_a_name_is_text_whatever_it_holds(name: str) -> None:
    rows = [replace(row, label=name) for row in records(c=(1.0, 2.0))]
    made_of = replace(layout(name), cells={("s", name, 0, 7): "c"})
    svg = drawn("pareto", rows, made_of, x="score", y="loss")
    root = ET.fromstring(svg)
    clean = name.replace("\n", " ").replace("\x00", "\ufffd")
    assert any(text == clean for text in root.itertext())
    assert {element.tag.rpartition("}")[2] for element in root.iter()}.isdisjoint({"b", "script"})


def test_bad_names_and_options_are_told_what_there_is() -> None:
    for message, words in {
        r"figure: got 'parto'; expected one of pareto, .*did you mean 'pareto'\?": ("parto", "svg", {}),
        r"--format: got 'gif'; expected one of svg, pdf, png": ("pareto", "gif", {}),
        r"--width: got 'wide'; expected one of page, column": ("pareto", "svg", {"width": "wide"}),
        r"--x: got 'r22'; expected one of .*did you mean 'r2'\?": ("pareto", "svg", {"x": "r22"}),
        r"--x: got one for sweeps; expected it for pareto only": ("sweeps", "svg", {"x": "r2"}),
        r"--beside: got 'x'; expected 'published'": ("pareto", "svg", {"beside": "x"}),
        r"got a run without the replies of judges; expected .* `eludebench judge run": ("wins", "svg", {}),
        r"got a run without stability; .* `full` say": ("stability", "svg", {}),
        r"the paper prints no r2 with l0": ("pareto", "svg", {"y": "l0", "beside": "published"}),
    }.items():
        name, form, options = cast("tuple[str, str, dict[str, Any]]", words)
        with pytest.raises((LookupError, ValueError), match=message):
            drawn(name, **run_of("quick"), format=form, **options)
    with pytest.raises(UsageError, match="did you mean 'pareto'"):
        rendered_figure(None, "parto", "svg")
    with pytest.raises(NothingToDrawError, match="got no run"):
        chart("stability")


# The paper's numbers


def test_the_paper_s_figure_follows_from_its_tables_alone() -> None:
    of = chart("pareto", beside="published")
    planes = [panel for panel in of.panels if isinstance(panel, Plane)]
    for plane, backbone in zip(planes, ("dinov2_vit_b14", "augreg_vit_b16"), strict=True):
        rows = [row for row in rows_of("table2.csv") if row["backbone"] == backbone]
        assert {one.name: (one.x.value, one.y.value) for one in plane.marks} == {
            row["method"]: (float(row["r2"]), float(row["ms_score"])) for row in rows
        }
        assert [one.name for one in plane.front] == ["elude"]
    assert {one.kind for plane in planes for one in plane.marks} == {"published"}


def test_beside_a_run_the_paper_has_panels_of_its_own_unless_the_site_is_its_own() -> None:
    of = chart("pareto", **run_of("quick"), beside="published")
    kinds = [{mark.kind for mark in panel.marks} for panel in of.panels if isinstance(panel, Plane)]
    assert kinds == [{"method", "reference"}] * 2 + [{"published"}] * 2


def test_the_command_writes_files(tmp_path: Path) -> None:
    runner = CliRunner()
    folder = str(ROOT / "results" / "ablations")
    done = runner.invoke(app, ["figure", "all", "--run", folder, "--out", str(tmp_path / "all"), "--format", "pdf"])
    assert done.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(f"{n}.pdf" for n in RUNS["ablations"])
    done = runner.invoke(app, ["figure", "pareto", "--published", "--out", str(tmp_path / "p.png")])
    assert done.exit_code == 0
    assert (tmp_path / "p.png").read_bytes() == to_bytes(chart("pareto", beside="published"), "png", WIDTHS["page"])


# Colours

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_for_the_colour_blind(kind: str) -> None:
    rgb = np.array([[int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for color in COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(BLINDNESS[kind]).T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(COLORS), 1)]
    assert apart.min() > 10


def test_nothing_hangs_on_colour_alone() -> None:
    assert len(set(MARKERS)) == len(MARKERS) >= 15
    assert set(MARKERS).isdisjoint(REFERENCE_MARKERS)
    assert len(set(zip(COLORS * len(MARKERS), MARKERS * len(COLORS), strict=True))) == len(COLORS) * len(MARKERS)


def test_numbers_in_cells_are_readable() -> None:
    for share in range(101):
        light = luminance(DIVERGING(share / 100))
        ink = luminance(readable_on(DIVERGING(share / 100)))
        assert (max(light, ink) + 0.05) / (min(light, ink) + 0.05) >= 4.5


def test_every_figure_says_what_it_is() -> None:
    for name, spec in FIGURES.items():
        assert name == spec.name
        assert spec.title
        assert len(spec.shows) > 20

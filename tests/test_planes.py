"""Where things stand on a plane of points: axes without noise, markers that can be told apart, names beside them."""

import pytest
from matplotlib import style
from matplotlib.figure import Figure
from test_figures import layout, records, run_of

from results.charts import Chart
from results.figures import WIDTHS, chart
from results.plots import LOOK, figure_of


def drawing(of: Chart) -> Figure:
    """The figure with everything in its place."""
    with style.context(LOOK, after_reset=True):
        made = figure_of(of, WIDTHS["page"])
        made.draw_without_rendering()
    return made


def test_rounding_noise_is_no_gap_and_no_axis_has_an_offset() -> None:
    rows = records(a=(100 - 1e-11, 1.0), b=(100.0, 2.0))
    (axes,) = drawing(chart("pareto", rows, layout("a", "b"), x="score", y="loss")).axes
    low, high = axes.get_xlim()
    assert high - low == pytest.approx(0.1)  # ten steps of the last digit that tables show
    assert low < 100 < high
    assert axes.xaxis.get_offset_text().get_text() == axes.yaxis.get_offset_text().get_text() == ""
    assert "100.00" in [label.get_text() for label in axes.get_xticklabels()]


def test_markers_in_one_place_stand_side_by_side_with_their_data_unchanged() -> None:
    rows = records(a=(100.0, 2.0), b=(100.0, 2.0), c=(90.0, 1.0))
    done = drawing(chart("pareto", rows, layout("a", "b", "c"), x="score", y="loss"))
    lines = {str(line.get_label()): line for line in done.axes[0].lines}
    one, other = (lines[f"method: {name}"] for name in "ab")
    places = [line.get_transform().transform((100.0, 2.0)) for line in (one, other)]
    assert abs(places[0][0] - places[1][0]) * 72 / done.dpi >= 4  # points: as wide as the smallest marker
    assert [tuple(line.get_xdata()) for line in (one, other)] == [(100.0,), (100.0,)]  # type: ignore[arg-type]
    alone = lines["method: c"].get_transform().transform((90.0, 1.0))
    assert alone == pytest.approx(done.axes[0].transData.transform((90.0, 1.0)))


def test_the_name_of_the_topmost_point_stands_beside_it() -> None:
    done = drawing(chart("pareto", **run_of("quick")))
    for axes in done.axes:
        (name,) = [text for text in axes.texts if text.get_text() == "elude"]
        box, scale = name.get_window_extent(), done.dpi / 72
        (marker,) = [line for line in axes.lines if line.get_label() == "method: elude"]
        ((x, y),) = marker.get_transform().transform(marker.get_xydata())
        assert abs((box.y0 + box.y1) / 2 - y) < 3 * scale
        assert min(abs(box.x0 - x), abs(box.x1 - x)) < 12 * scale

"""The paper's own numbers as points: the data of its Figure 2 (Bağcı et al. 2026, Tables 2, 3 and 6)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from results.charts import Axis, Mark, Number, Plane, front_of
from results.paper import PAPER_TABLE2, PAPER_TABLE6
from results.published import rows_of

BACKBONE: Final = "backbone"
"""What the paper calls the row that nothing was taken apart in."""
BACKBONES: Final[Mapping[str, str]] = {
    "dinov2_vit_b14": "DINOv2 ViT-B/14",
    "augreg_vit_b16": "ImageNet-21k ViT-B/16",
}
SAYS: Final = "Hollow: as printed in Bağcı et al. 2026, ImageNet-1k; bars: ± standard deviation of three token seeds."
_PRINTED: Final = {
    "ms_score": ("ms_score", "ms_score_std"),
    "top1": ("accuracy", "accuracy_std"),
    "r2": ("r2", "r2_std"),
    "llm_rank": ("llm_rank", ""),
}
_WIN_RATE: Final = "llm_win_rate"

Place = tuple[str, str]
"""Which rows of the paper's tables: ("backbone", name) of Table 2, or ("setting", name) of Table 6."""


def place_of(site: str) -> Place | None:
    """Where the paper's numbers of a site stand; None where the site is none of its own."""
    for spec in (PAPER_TABLE2, PAPER_TABLE6):
        own = spec.published.sites.get(site) if spec.published else None
        if own:
            ((key, value),) = own.items()
            return key, value
    return None


def printed(metric: str, place: Place) -> dict[str, Number]:
    """What the paper prints of a metric there, by method, in its unit; of accuracies and scores with the spread."""
    key, value = place
    if metric == _WIN_RATE:
        rows = rows_of("table3.csv") if key == BACKBONE else ()
        return {
            row["method"]: Number(float(row["win_rate"]), float(row["ci_low"]), float(row["ci_high"]))
            for row in rows
            if row[key] == value
        }
    if metric not in _PRINTED:
        return {}
    column, spread = _PRINTED[metric]
    rows = rows_of("table2.csv" if key == BACKBONE else "table6.csv")
    return {row["method"]: _number(row, column, spread) for row in rows if row[key] == value and row[column]}


def _number(row: Mapping[str, str], column: str, spread: str) -> Number:
    """One printed number; the paper prints no spread of what is exact."""
    value = float(row[column])
    if not row.get(spread):
        return Number(value)
    return Number(value, value - float(row[spread]), value + float(row[spread]))


def printed_marks(x: str, y: str, place: Place) -> list[Mark]:
    """A point for each method of which the paper prints both numbers there; empty where it prints none."""
    across, upwards = printed(x, place), printed(y, place)
    size = 8.0
    if place[0] == "setting" and " EF" in place[1]:
        size = float(place[1].rpartition(" EF")[2])
    return [
        Mark(name, "published", across[name], upwards[name], 1.0, "paper")
        if name == BACKBONE
        else Mark(name, "published", across[name], upwards[name], size)
        for name in across
        if name in upwards
    ]


def printed_planes(x: tuple[str, Axis], y: tuple[str, Axis]) -> list[Plane]:
    """The panels of the paper's Figure 2, each with its metric and axis; empty where the paper prints no such pair."""
    planes = []
    for name, words in BACKBONES.items():
        marks = printed_marks(x[0], y[0], (BACKBONE, name))
        front = front_of([one for one in marks if one.name != BACKBONE], x[1], y[1])
        marks = [replace(one, says=one.name if one in front else "") for one in marks]
        planes.append(Plane(f"paper: {words}", x[1], y[1], tuple(marks), front))
    return [plane for plane in planes if plane.marks]


def printed_names() -> tuple[str, ...]:
    """The paper's methods, in its order."""
    return tuple(dict.fromkeys(row["method"] for row in rows_of("table2.csv") if row["method"] != BACKBONE))

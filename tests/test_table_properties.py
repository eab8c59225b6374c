"""The table of claims: what is claimed beside what was measured, disagreements marked, what is missing said."""

import csv
import io
from itertools import product
from random import Random
from typing import Any

import pytest

from results.claims import PROPERTIES
from results.layout import Layout, Site
from results.records import Record
from results.tables import find_table, render

UNITS = {column.metric: column.unit for column in PROPERTIES.columns}
NAMES = [claim.name for claim in PROPERTIES.claims]
ELUDE = {
    "seed_similarity": 1.0,
    "gradient_steps": 0.0,
    "runs_in_place": 1.0,
    "output_difference": 3.8e-6,
    "output_difference_float64": 7e-15,
    "logit_difference": 9e-6,
    "logit_difference_float64": 2e-14,
    "largest_output": 7.0,
    "largest_logit": 10.0,
    "runs_without_labels": 1.0,
}
"""What was measured of a method that has all properties."""
PROVENANCE: dict[str, Any] = {
    "suite": "tiny",
    "site": "s",
    "dataset": "shapes",
    "backbone": "vit",
    "module": "fc",
    "method": "any",
    "label": "l",
    "token_seed": 0,
    "init_seed": 7,
    "commit": None,
    "dirty": None,
    "versions": {},
    "device": "cpu",
    "time": "2025-11-21T05:35:00+00:00",
}


def cell(name: str, measured: dict[str, Any], **claims: bool) -> list[Record]:
    """The records of a closed cell; a text in place of a number is the reason of a null."""
    notes = {f"claims_{claim}": value for claim, value in claims.items()}
    rows = [
        Record(
            kind="value",
            cell=name,
            metric=metric,
            unit=UNITS[metric],
            notes=notes,
            interval="none" if isinstance(value, str) else "exact",
            value=None if isinstance(value, str) else value,
            reason=value if isinstance(value, str) else None,
            n=0 if isinstance(value, str) else 1,
            **PROVENANCE,
        )
        for metric, value in measured.items()
    ]
    return [*rows, Record(kind="cell", cell=name, metric="status", text="complete", notes=notes, **PROVENANCE)]


def layout_of(*labels: str, n_seeds: int = 1) -> Layout:
    seeds = tuple(range(n_seeds))
    return Layout(
        sites=(Site("s", "shapes", "vit", "fc"),),
        labels=labels,
        token_seeds=seeds,
        init_seeds=(7,),
        cells={("s", label, seed, 7): label + (str(seed) if n_seeds > 1 else "") for label in labels for seed in seeds},
    )


def markdown(records: list[Record], *labels: str, n_seeds: int = 1) -> str:
    return render(PROPERTIES, records, layout=layout_of(*labels, n_seeds=n_seeds), format="md")


def answers(table: str) -> dict[str, list[str]]:
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[1]: row[2:] for row in rows}


ALL = dict.fromkeys(NAMES, True)


def test_a_method_that_keeps_its_word() -> None:
    table = markdown(cell("elude", ELUDE, **ALL), "elude")
    assert answers(table)["elude"] == [
        "yes / yes (1.000)",
        "yes / yes (0)",
        "yes / yes",
        "yes / yes (2.0e-15)",
        "yes / yes",
        "3.8e-06",
        "7.0e-15",
        "9.0e-06",
        "2.0e-14",
    ]
    assert "**" not in table.replace("**bold**", "")
    assert "Token seed 0, init seed 7" in table


@pytest.mark.parametrize(
    ("changed", "claim", "shown"),
    [
        ({"seed_similarity": 0.788}, "stable", "yes / **NO (0.788)** (a)"),
        ({"gradient_steps": 450.0}, "training_free", "yes / **NO (450)** (a)"),
        ({"runs_in_place": 0.0, "logit_difference_float64": 1.0}, "explicit", "yes / **NO** (a)"),
        ({"output_difference_float64": 0.07}, "lossless", "yes / **NO (1.0e-02)** (a)"),
        ({"logit_difference_float64": 1e-6}, "lossless", "yes / **NO (1.0e-07)** (a)"),
        ({"runs_without_labels": 0.0}, "unsupervised", "yes / **NO** (a)"),
    ],
)
def test_a_claim_that_is_not_measured_is_bold_and_has_a_footnote(
    changed: dict[str, float], claim: str, shown: str
) -> None:
    table = markdown(cell("m", {**ELUDE, **changed}, **ALL), "m")
    place = NAMES.index(claim)
    assert answers(table)["m"][place] == shown
    assert f"- (a) claimed to be {PROPERTIES.claims[place].heading}, measured otherwise" in table


def test_what_is_measured_and_not_claimed_is_marked_too() -> None:
    table = markdown(cell("m", ELUDE, **{**ALL, "stable": False}), "m")
    assert answers(table)["m"][0] == "no / **YES (1.000)** (a)"
    assert "- (a) not claimed to be stable, measured otherwise" in table


def test_a_method_that_claims_nothing_and_has_nothing_agrees() -> None:
    measured = {
        **ELUDE,
        "seed_similarity": 0.5,
        "gradient_steps": 9.0,
        "output_difference_float64": 1.0,
        "runs_without_labels": 0.0,
    }
    table = markdown(cell("m", measured, **{**dict.fromkeys(NAMES, False), "explicit": True}), "m")
    assert [answer.split(" (")[0] for answer in answers(table)["m"][:5]] == [
        "no / no",
        "no / no",
        "yes / yes",
        "no / no",
        "no / no",
    ]
    assert "measured otherwise" not in table


def test_the_thresholds_themselves_hold_and_are_stated() -> None:
    at = {**ELUDE, "seed_similarity": 0.99, "output_difference_float64": 7e-9, "largest_output": 7.0}
    table = markdown(cell("m", at, **ALL), "m")
    assert answers(table)["m"][0] == "yes / yes (0.990)"
    assert answers(table)["m"][3] == "yes / yes (1.0e-09)"
    assert "at least 0.99" in table
    assert "more than 1e-9 of the largest" in table


def test_virtual_units_lose_nothing_and_say_so() -> None:
    why = "virtual units: the network stays as it is and nothing is rebuilt from the codes"
    measured = {**ELUDE, **{name: why for name in ELUDE if "difference" in name}, "runs_in_place": 0.0}
    table = markdown(cell("pure", measured, **{**ALL, "explicit": False}), "pure")
    assert answers(table)["pure"][2:4] == ["no / no", "yes / yes (untouched)"]
    assert answers(table)["pure"][5:] == ["—"] * 4
    assert "otherwise" not in table


def test_what_is_missing_is_a_dash_with_a_reason() -> None:
    measured = {**ELUDE, "seed_similarity": "the method gives no dictionary"}
    del measured["gradient_steps"]
    table = markdown(cell("m", measured, **ALL), "m", "later")
    assert answers(table)["m"][:2] == ["yes / — (a)", "yes / — (b)"]
    assert answers(table)["later"][0] == "— / — (c) (d)"
    for line in ("(a) the method gives no dictionary", "(b) not measured", "(c) not run yet", "(d) no record says"):
        assert f"- {line}" in table


def test_a_reason_beside_a_number_is_a_footnote() -> None:
    records = cell("m", {**ELUDE, "runs_without_labels": 0.0}, **{**ALL, "unsupervised": False})
    records = [
        Record(**{**vars(row), "reason": "with labels withheld: none_there"})
        if row.metric == "runs_without_labels"
        else row
        for row in records
    ]
    table = markdown(records, "m")
    assert answers(table)["m"][4] == "no / no (a)"
    assert "- (a) with labels withheld: none_there" in table


def test_over_token_seeds_the_means_decide() -> None:
    records = cell("m0", ELUDE, **ALL) + cell("m1", {**ELUDE, "seed_similarity": 0.97}, **ALL)
    table = markdown(records, "m", n_seeds=2)
    assert answers(table)["m"][0] == "yes / **NO (0.985)** (a)"
    assert "Means over token seeds 0, 1, init seed 7" in table


def test_the_csv_has_every_number_behind_every_claim() -> None:
    text = render(PROPERTIES, cell("m", {**ELUDE, "gradient_steps": 5.0}, **ALL), layout=layout_of("m"), format="csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["property"] for row in rows} == set(NAMES)
    assert {row["metric"]: float(row["mean"]) for row in rows} == {**ELUDE, "gradient_steps": 5.0}
    assert {row["property"]: (row["claimed"], row["measured"]) for row in rows} == {
        **dict.fromkeys(NAMES, ("yes", "yes")),
        "training_free": ("yes", "no"),
    }
    empty = render(PROPERTIES, [], layout=layout_of("m"), format="csv")
    assert {(row["claimed"], row["measured"], row["mean"]) for row in csv.DictReader(io.StringIO(empty))} == {
        ("", "", "")
    }


def test_records_in_any_order_give_the_same_bytes() -> None:
    records = cell("a", ELUDE, **ALL) + cell("b", {**ELUDE, "seed_similarity": 0.1}, **ALL)
    shuffled = Random(0).sample(records, len(records))
    for form, rows in product(("md", "csv"), (records, shuffled)):
        assert render(PROPERTIES, rows, layout=layout_of("a", "b"), format=form) == render(
            PROPERTIES, records, layout=layout_of("a", "b"), format=form
        )


def test_it_is_found_by_name_and_its_scale_may_be_zero() -> None:
    assert find_table("properties") is PROPERTIES
    zeros = {**ELUDE, "output_difference_float64": 0.0, "largest_output": 0.0}
    assert answers(markdown(cell("m", zeros, **ALL), "m"))["m"][3] == "yes / yes (2.0e-15)"

"""The properties that methods claim, measured: hand-made runs, and what the evaluation hands to the metrics."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from references import Evaluation, Rerun, evaluation, number, stream

from bench.registry import Registry
from bench.suites import load_suite
from metrics import properties
from metrics.catalogue import ROWS
from metrics.properties import Exactness, Repeatability
from metrics.similarity import Dictionary, similarity

DIFFERENCES = ("output_difference", "output_difference_float64", "logit_difference", "logit_difference_float64")


def split_of(rerun: Rerun) -> Evaluation:
    return evaluation(n_images=2, rerun=rerun)


def test_a_second_run_is_told_as_it_was() -> None:
    one, other = torch.randn(7, 3), torch.randn(6, 3)
    values = stream(Repeatability(split_of(Rerun(one, other, gradient_steps=450))), split_of(Rerun()))
    assert values["seed_similarity"] == similarity(Dictionary(one), Dictionary(other))
    assert number(values["gradient_steps"]) == 450
    assert (number(values["runs_without_labels"]), values["runs_without_labels"].reason) == (1, None)


def test_parents_decide_where_both_runs_split_units() -> None:
    one, parents = torch.eye(4), torch.tensor([0, 0, 1, 1])
    split = evaluation(n_images=2, unit_of_atom=parents, rerun=Rerun(one, one[[2, 3, 0, 1]], parents))
    assert number(Repeatability(split).compute()["seed_similarity"]) == 0  # the same atoms, but of the other unit
    whole = evaluation(n_images=2, rerun=Rerun(one, one[[2, 3, 0, 1]]))
    assert number(Repeatability(whole).compute()["seed_similarity"]) == 1


def test_a_method_that_stops_without_labels_needs_them() -> None:
    values = Repeatability(split_of(Rerun(needs_labels="LookupError: labels: got none"))).compute()
    assert number(values["runs_without_labels"]) == 0
    assert values["runs_without_labels"].reason == "with labels withheld: LookupError: labels: got none"


def test_without_a_dictionary_similarity_is_null_and_the_rest_is_there() -> None:
    values = Repeatability(split_of(Rerun(None, None, gradient_steps=3))).compute()
    assert values["seed_similarity"].reason == "the method gives no dictionary to compare two runs by; add one"
    assert number(values["gradient_steps"]) == 3


def exact() -> Evaluation:
    split = evaluation(n_images=30)
    split.reconstruction, split.replaced_logits = split.outputs.clone(), split.logits.clone()
    return split


def test_the_largest_differences_are_absolute_and_over_all_batches() -> None:
    split = exact()
    split.reconstruction[3, 1, 2] -= 8
    split.reconstruction[29, 0, 0] += 2
    split.replaced_logits[7, 1] += 5
    values = stream(Exactness(split), split, batch_size=4)
    assert number(values["output_difference"]) == pytest.approx(8, abs=1e-5)
    assert number(values["logit_difference_float64"]) == pytest.approx(5, abs=1e-5)
    assert number(values["largest_output"]) == split.outputs.abs().max()
    assert number(values["largest_logit"]) == split.logits.abs().max()
    assert {value.n for value in values.values()} == {30}


def test_what_is_the_same_differs_by_nothing_and_runs_in_place() -> None:
    split = exact()
    values = stream(Exactness(split), split)
    assert {name: number(values[name]) for name in DIFFERENCES} == dict.fromkeys(DIFFERENCES, 0.0)
    assert number(values["runs_in_place"]) == 1


def test_float64_shows_what_float32_rounds_away() -> None:
    split = exact()
    batch = next(split.batches(30))
    fine = replace(split, **{name: getattr(split, name).double() for name in ("outputs", "reconstruction")})
    fine.reconstruction[0, 0, 0] += 2.0**-40
    metric = Exactness(split)
    names = ("images", "labels", "outputs", "codes", "reconstruction", "logits", "replaced_logits")
    both: Any = SimpleNamespace(**{name: getattr(batch, name) for name in names}, in_float64=next(fine.batches(30)))
    metric.update(both, pass_index=0)
    values = metric.compute()
    assert number(values["output_difference"]) == 0
    assert number(values["output_difference_float64"]) == pytest.approx(2.0**-40, rel=1e-3)


def test_only_the_first_images_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(properties, "N_IMAGES", 10)
    split = exact()
    split.reconstruction[10:] += 1
    values = stream(Exactness(split), split, batch_size=4)
    assert (number(values["output_difference"]), values["output_difference"].n) == (0, 10)
    metric, batches = Exactness(split), list(split.batches(10))
    for batch in batches:
        metric.update(batch, pass_index=0)
    assert batches[0].was_read
    assert not batches[1].was_read


def test_virtual_units_replace_nothing() -> None:
    split = exact()
    split.is_explicit = False
    batches = list(split.batches(16))
    metric = Exactness(split)
    for batch in batches:
        metric.update(batch, pass_index=0)
    values = metric.compute()
    assert all(batch.was_read == {"outputs", "logits"} for batch in batches)
    assert (number(values["runs_in_place"]), values["runs_in_place"].reason) == (
        0,
        "virtual units: the network stays as it is",
    )
    assert all(values[name].value is None for name in DIFFERENCES)
    assert number(values["largest_logit"]) > 0


@pytest.mark.parametrize("image", [0, 29])
@pytest.mark.parametrize("what", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_null(image: int, what: float) -> None:
    split = exact()
    split.replaced_logits[image, 0] = what
    values = stream(Exactness(split), split, batch_size=8)
    assert values["logit_difference"].reason == "numbers that are not finite"
    assert values["runs_in_place"].reason == "numbers that are not finite"
    assert number(values["output_difference"]) == 0


def test_they_are_measured_only_where_a_suite_asks() -> None:
    dear = {name for name, row in ROWS.items() if not row.by_default}
    own = {row.name for metric in (Repeatability, Exactness) for row in metric.rows}
    assert own <= dear
    assert not dear & {row.name for row in load_suite("quick", Registry()).metrics}
    assert own == {row.name for row in load_suite("properties", Registry()).metrics}

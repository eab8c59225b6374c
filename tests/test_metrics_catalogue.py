"""The catalogue and the contract that every metric in it keeps, driven by the rows: a new one is tested at once."""

import subprocess
import sys
from importlib import import_module

import pytest
import torch
from references import Evaluation, evaluation, number, stream, teach

from bench.known_parts import KnownParts
from metrics.catalogue import ROWS, Value, rows_of
from metrics.protocol import Metric

CLASSES = list(dict.fromkeys(row.computed_by for row in ROWS.values() if "init_seeds" not in row.needs))


def load(computed_by: str) -> type[Metric]:
    module, attribute = computed_by.split(":")
    metric_class: type[Metric] = getattr(import_module(module), attribute)
    return metric_class


def sparse_evaluation() -> Evaluation:
    split = evaluation(n_images=70, seed=3)
    split.codes = (split.codes - 0.5).relu()
    split.codes[:, :, 2] = 0
    split.codes_are_nonnegative = True
    split.in_place_logits = split.replaced_logits
    split.concepts = torch.rand(70, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.3
    split.dictionaries = {"output": torch.eye(7, 5) + 0.1, "input": torch.eye(7, 5) + split.codes[0, :1].T}
    split.unit_of_atom = torch.arange(7) % 5
    split.truth = KnownParts(("a", "b"), torch.eye(5), torch.arange(5), torch.arange(5) % 2)
    return split


def test_listing_the_metrics_imports_nothing_heavy() -> None:
    code = "import sys, metrics.catalogue; print({'torch', 'numpy', 'scipy', 'jaxtyping'} & set(sys.modules))"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "set()"


def test_rows_are_found_under_their_own_name() -> None:
    assert all(name == row.name for name, row in ROWS.items())
    assert [row.name for row in rows_of("metrics.replacement:Replacement")] == [
        "top1",
        "top1_untouched",
        "top5",
        "top5_untouched",
        "agreement",
        "kl",
        "max_logit_difference",
    ]


def test_rows_of_an_unknown_class_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'metrics\.sparsity:Sparse'; expected one of .*metrics\.sparsity:Sparsity"):
        rows_of("metrics.sparsity:Sparse")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_value_is_never_nan_or_infinite(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"Value\.value is (nan|inf); expected a finite number"):
        Value(wrong, None, None, "exact", 1)
    with pytest.raises(ValueError, match=r"Value\.high is (nan|inf)"):
        Value(1.0, 0.0, wrong, "bootstrap over atoms", 2)


def test_a_null_says_why() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        Value(None, None, None, "none", 0)
    assert Value.null("no images").reason == "no images"


@pytest.mark.parametrize("computed_by", CLASSES)
def test_a_metric_fills_exactly_its_rows_within_their_bounds(computed_by: str) -> None:
    split = sparse_evaluation()
    metric = load(computed_by)(split)
    assert isinstance(metric, Metric)
    assert metric.rows == rows_of(computed_by)
    values = stream(metric, split)
    assert set(values) == {row.name for row in metric.rows}
    for row in metric.rows:
        value, (smallest, largest) = number(values[row.name]), row.bounds
        assert smallest is None or value >= smallest
        assert largest is None or value <= largest
        low, high = values[row.name].low, values[row.name].high
        assert (low is None) == (high is None)
        assert low is None or high is None or low <= value <= high


@pytest.mark.parametrize("computed_by", CLASSES)
def test_a_metric_reads_exactly_what_its_rows_need(computed_by: str) -> None:
    split = sparse_evaluation()
    metric = load(computed_by)(split)
    teach(metric, split)
    was_read: set[str] = set()
    for pass_index in range(metric.passes):
        for batch in split.batches(16):
            metric.update(batch, pass_index=pass_index)
            was_read |= batch.was_read
    assert was_read == {need for row in metric.rows for need in row.needs}


@pytest.mark.parametrize("computed_by", CLASSES)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_of_any_size_equal_one_batch(computed_by: str, batch_size: int) -> None:
    split = sparse_evaluation()
    in_batches = stream(load(computed_by)(split), split, batch_size)
    at_once = stream(load(computed_by)(split), split, split.n_images)
    for name, value in at_once.items():
        assert number(in_batches[name]) == pytest.approx(number(value), abs=1e-10)
        assert in_batches[name].low == pytest.approx(value.low, abs=1e-10)
        assert in_batches[name].high == pytest.approx(value.high, abs=1e-10)
        assert (in_batches[name].n, in_batches[name].n_excluded) == (value.n, value.n_excluded)


@pytest.mark.parametrize("computed_by", CLASSES)
def test_permuting_atoms_leaves_every_value(computed_by: str) -> None:
    split = sparse_evaluation()
    before = stream(load(computed_by)(split), split)
    split.codes = split.codes[:, :, torch.randperm(split.n_atoms, generator=torch.Generator().manual_seed(1))]
    after = stream(load(computed_by)(split), split)
    for name, value in before.items():
        assert number(after[name]) == pytest.approx(number(value), abs=1e-10)


@pytest.mark.parametrize("computed_by", [name for name in CLASSES if load(name).passes])
def test_an_empty_split_has_no_values(computed_by: str) -> None:
    split = evaluation(n_images=0)
    values = stream(load(computed_by)(split), split)
    assert all(value.value is None and "images" in (value.reason or "") for value in values.values())

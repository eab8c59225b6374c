"""L0, density, dead atoms and the expansion factor: hand-made codes and plain loops."""

from collections.abc import Mapping

import pytest
import torch
from references import Evaluation, evaluation, interval, l0, number, stream, wilson

from metrics.catalogue import Value
from metrics.expansion import Expansion
from metrics.sparsity import Sparsity


def measured(split: Evaluation) -> Mapping[str, Value]:
    return stream(Sparsity(split), split)


def test_two_images_by_hand() -> None:
    codes = torch.tensor([[[1.0, 0, 0, -2], [0, 0, 0, 0]], [[3, 1, 0, 0], [0, 0, 0, 1e-30]]])
    values = measured(evaluation(codes=codes))
    assert values["l0"].value == 1.25
    assert values["density"].value == 31.25
    assert values["dead_share"].value == 25
    assert values["l0"].interval == "bootstrap over images in 64 blocks"
    assert values["dead_share"].interval == "wilson over atoms"


def test_equals_a_plain_loop() -> None:
    split = evaluation(n_images=33, n_tokens=4, n_atoms=9)
    split.codes = (split.codes - 1).relu()
    values = measured(split)
    assert number(values["l0"]) == pytest.approx(l0(split.codes.double().numpy()), abs=1e-12)
    assert number(values["density"]) == pytest.approx(number(values["l0"]) / 9 * 100, abs=1e-12)
    assert interval(values["density"]) == pytest.approx([end / 9 * 100 for end in interval(values["l0"])])


def test_scaling_codes_changes_nothing() -> None:
    split = evaluation()
    split.codes = split.codes.relu()
    before = measured(split)
    split.codes = split.codes * -17.0
    assert measured(split) == before


def test_dense_codes_are_as_many_as_atoms() -> None:
    values = measured(evaluation(codes=torch.ones(20, 3, 6)))
    assert (values["l0"].value, values["density"].value, values["dead_share"].value) == (6, 100, 0)
    assert interval(values["l0"]) == (6, 6)


def test_all_dead() -> None:
    values = measured(evaluation(codes=torch.zeros(20, 3, 6)))
    assert (values["l0"].value, values["density"].value, values["dead_share"].value) == (0, 0, 100)
    low, high = wilson(6, 6)
    assert interval(values["dead_share"]) == pytest.approx((100 * low, 100 * high), abs=2e-4)


def test_an_atom_alive_in_one_token_of_the_last_batch_is_not_dead() -> None:
    codes = torch.zeros(40, 3, 5)
    codes[39, 2, 4] = -1
    assert measured(evaluation(codes=codes))["dead_share"].value == 80


def test_expansion_factor_is_atoms_a_unit_without_a_pass() -> None:
    split = evaluation(n_units=4, n_atoms=6)
    assert Expansion.passes == 0
    assert stream(Expansion(split), split)["expansion_factor"] == Value(1.5, None, None, "exact", 6)

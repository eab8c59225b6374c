"""What was planted against what was found: equal to scikit-learn and to slow loops, and right at both ends."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from references import Evaluation, evaluation, interval, number, stream, top_images
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from bench.known_parts import KnownParts
from metrics.ground_truth import GroundTruth, PlantedParts, aucs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(*, n_images: int = 60, n_atoms: int = 7, n_concepts: int = 4, seed: int = 0) -> Evaluation:
    """Codes that answer to a concept each, some of them rounded so that there are ties, one of them dead."""
    split = evaluation(n_images=n_images, n_tokens=5, n_atoms=n_atoms, seed=seed)
    split.concepts = torch.rand(n_images, 5, n_concepts, generator=generator(seed)) < 0.25
    answers = split.concepts.float() @ torch.randn(n_concepts, n_atoms, generator=generator(seed + 1))
    split.codes = split.codes + answers
    split.codes[..., 1] = (2 * split.codes[..., 1]).round() / 2
    split.codes[..., 2] = split.codes[..., 2].relu()
    split.codes[..., 3] = 0
    split.dictionaries = {"output": torch.randn(n_atoms, 5, generator=generator(seed + 2))}
    return split


def concepts_of(split: Evaluation) -> Tensor:
    assert split.concepts is not None
    return split.concepts


def slow_table(split: Evaluation) -> np.ndarray:
    present, codes = concepts_of(split).flatten(0, 1).numpy(), split.codes.flatten(0, 1).numpy()
    return np.array([[roc_auc_score(shown, code) for code in codes.T] for shown in present.T])


@pytest.mark.parametrize("seed", [0, 1])
def test_auc_equals_scikit_learn_and_the_matching_is_the_best_of_all(seed: int) -> None:
    split = planted(seed=seed)
    values, table = stream(GroundTruth(split), split), slow_table(split)
    matchings = permutations(range(split.n_atoms), len(table))
    best = max(np.mean([table[c, atom] for c, atom in enumerate(matching)]) for matching in matchings)
    assert number(values["concept_auc"]) == pytest.approx(best, abs=1e-9)
    assert number(values["concept_auc_unmatched"]) == pytest.approx(table.max(axis=1).mean(), abs=1e-9)
    assert (values["concept_auc"].n, values["concept_auc"].n_excluded) == (4, 0)


def test_auc_of_codes_with_ties_is_exact() -> None:
    codes = torch.randint(4, (200, 300), generator=generator()).float().numpy()
    present = (torch.rand(200, 3, generator=generator()) < 0.3).numpy()
    slow = [[roc_auc_score(shown, code) for code in codes.T] for shown in present.T]
    assert np.abs(aucs(codes, present) - slow).max() < 1e-12
    assert aucs(np.zeros((200, 1), dtype=np.float32), present) == pytest.approx(0.5, abs=0)


def test_auc_is_of_a_sample_that_is_the_same_in_batches_of_any_size() -> None:
    split = planted(n_images=90)
    one, other = (stream(GroundTruth(split, max_tokens=200), split, size) for size in (7, 90))
    assert one == other
    whole = stream(GroundTruth(split), split)
    assert number(one["concept_auc"]) != number(whole["concept_auc"])
    assert number(one["concept_auc"]) == pytest.approx(number(whole["concept_auc"]), abs=0.1)
    assert (one["concept_auc"].reason, whole["concept_auc"].reason) == ("on 200 tokens", "on 450 tokens")


def slow_purity(split: Evaluation, atom: int, k: int) -> float | None:
    codes, concepts = split.codes[:, :, atom].tolist(), concepts_of(split)
    smallest = min(min(tokens) for tokens in codes)
    shown: Counter[int] = Counter()
    n = 0
    for image in top_images([max(tokens) for tokens in codes], k):
        if max(codes[image]) > smallest:
            n += 1
            position = codes[image].index(max(codes[image]))
            shown.update(concepts[image, position].nonzero().flatten().tolist())
    return None if n < 2 else 100 * max(shown.values(), default=0) / n


@pytest.mark.parametrize(("batch_size", "k"), [(1, 8), (7, 8), (60, 8), (16, 100)])
def test_purity_equals_counting_in_the_top_images(batch_size: int, k: int) -> None:
    split = planted()
    value = stream(GroundTruth(split, top_k=k), split, batch_size)["exemplar_purity"]
    slow = [purity for atom in range(split.n_atoms) if (purity := slow_purity(split, atom, k)) is not None]
    assert len(slow) == split.n_atoms - 1
    assert number(value) == pytest.approx(np.mean(slow), abs=1e-9)
    assert (value.n, value.n_excluded) == (len(slow), 1)
    assert value.reason == "1 driven by fewer than two images, or with codes that are not finite"


def test_an_image_that_does_not_drive_an_atom_is_no_exemplar_of_it() -> None:
    """One concept stands in three images; the atom that fires there alone is pure, though 60 images are kept."""
    split = planted(n_atoms=4)
    split.concepts = torch.zeros(60, 5, 1, dtype=torch.bool)
    split.concepts[[3, 20, 59], [0, 4, 2]] = True
    split.codes = split.concepts.float().expand(-1, -1, 4)
    assert number(stream(GroundTruth(split), split)["exemplar_purity"]) == 100


def test_chance_of_purity_is_the_purity_of_codes_at_random() -> None:
    concepts = torch.rand(3000, 1, 6, generator=generator()) < torch.tensor([0.05, 0.1, 0.1, 0.2, 0.02, 0.1])
    codes = torch.randn(3000, 1, 400, generator=generator())
    split = evaluation(codes=codes, concepts=concepts)
    values = stream(GroundTruth(split), split, 1000)
    low, high = interval(values["exemplar_purity"])
    assert low < number(values["exemplar_purity_chance"]) < high
    assert values["exemplar_purity_chance"].interval == "1000 draws of 100 tokens"


def test_concept_cosine_equals_a_regression_on_all_concepts() -> None:
    split = planted()
    present, outputs = concepts_of(split).flatten(0, 1).numpy(), split.outputs.flatten(0, 1).numpy()
    effects = LinearRegression().fit(present.astype(float), outputs.astype(float)).coef_.T
    slow = cosine_similarity(effects, split.dictionaries["output"].numpy()).max(axis=1)
    value = stream(GroundTruth(split), split)["concept_cosine"]
    assert number(value) == pytest.approx(slow.mean(), abs=1e-6)


def test_a_dictionary_of_the_planted_directions_has_cosine_one_at_any_scale() -> None:
    split = planted()
    directions = torch.randn(4, 5, generator=generator(9))
    split.outputs = concepts_of(split).float() @ directions + 7
    split.dictionaries = {"output": torch.cat([3 * directions, torch.zeros(1, 5)])}
    assert number(stream(GroundTruth(split), split)["concept_cosine"]) == pytest.approx(1, abs=1e-6)
    split.dictionaries = {"output": -directions[:1]}
    assert number(stream(GroundTruth(split), split)["concept_cosine"]) < 0.9


def test_permuting_atoms_or_concepts_leaves_every_value() -> None:
    split = planted()
    before = stream(GroundTruth(split), split)
    order = torch.randperm(7, generator=generator(3))
    split.codes, split.dictionaries = split.codes[..., order], {"output": split.dictionaries["output"][order]}
    split.concepts = concepts_of(split).flip(2)
    after = stream(GroundTruth(split), split)
    for name, value in before.items():
        assert number(after[name]) == pytest.approx(number(value), abs=1e-10)


def test_codes_of_the_concepts_themselves_are_perfect_and_random_ones_are_not() -> None:
    split = planted(n_images=300)
    only_one = torch.randint(5, (300, 5, 1), generator=generator(5)) == torch.arange(4)  # none, where it is the fifth
    split.concepts, random_codes = only_one, torch.randn(300, 5, 4, generator=generator(6))
    split.codes = only_one * torch.rand(300, 5, 1, generator=generator(7)).add(0.5)
    perfect = stream(GroundTruth(split), split)
    split.codes = random_codes
    random = stream(GroundTruth(split), split)
    assert number(perfect["concept_auc"]) == 1
    assert number(perfect["exemplar_purity"]) == 100
    assert number(random["concept_auc"]) < 0.6
    assert number(random["exemplar_purity"]) < 50


def test_concepts_that_say_nothing_are_excluded_and_counted() -> None:
    split = planted()
    concepts_of(split)[..., 0] = False
    concepts_of(split)[..., 1] = True
    values = stream(GroundTruth(split), split)
    table = [[roc_auc_score(shown, code) for code in split.codes.flatten(0, 1).numpy().T]
             for shown in concepts_of(split)[..., 2:].flatten(0, 1).numpy().T]  # fmt: skip
    assert number(values["concept_auc_unmatched"]) == pytest.approx(np.max(table, axis=1).mean(), abs=1e-9)
    assert (values["concept_auc"].n, values["concept_auc"].n_excluded) == (2, 2)
    assert values["concept_auc"].reason == "on 300 tokens, 2 concepts at none or all of them"
    assert values["concept_cosine"].n_excluded == 2
    concepts_of(split)[:] = False
    values = stream(GroundTruth(split), split)
    assert values["concept_auc"].reason == "no concept that some tokens show and others do not, on 300 tokens"
    assert values["concept_cosine"].reason == "no concept moves the outputs"
    assert number(values["exemplar_purity"]) == 0


def test_fewer_atoms_than_concepts_leave_some_without() -> None:
    split = planted(n_atoms=4)
    split.codes, split.dictionaries = split.codes[..., :2], {}
    values = stream(GroundTruth(split), split)
    assert (values["concept_auc"].n, values["concept_auc"].n_excluded) == (2, 2)
    assert "2 concepts left without an atom" in (values["concept_auc"].reason or "")
    assert values["concept_auc_unmatched"].n == 4
    assert values["concept_cosine"].reason == "the method's atoms are no directions among the outputs"


def test_codes_that_are_not_finite_leave_their_atom_out() -> None:
    split = planted()
    whole = split.codes.clone()
    split.codes[8, 2, 5] = torch.nan
    values = stream(GroundTruth(split), split)
    split.codes = whole[..., [0, 1, 2, 3, 4, 6]]
    without = stream(GroundTruth(split), split)
    for name in ("concept_auc", "concept_auc_unmatched", "exemplar_purity"):
        assert number(values[name]) == pytest.approx(number(without[name]), abs=1e-12)
    assert values["concept_auc"].reason == "on 300 tokens, 1 atoms with codes that are not finite left out"
    assert values["exemplar_purity"].n_excluded == 2


def test_one_image_and_a_set_without_concepts_have_values_or_reasons() -> None:
    split = planted(n_images=1)
    values = stream(GroundTruth(split), split)
    assert values["exemplar_purity"].value is None
    split.concepts = torch.zeros(1, 5, 0, dtype=torch.bool)
    assert all("no concepts" in (value.reason or "") for value in stream(GroundTruth(split), split).values())


def truth() -> KnownParts:
    """Three units of 2, 1 and 2 parts over six inputs."""
    parts = torch.randn(5, 6, generator=generator(4))
    return KnownParts(("a", "b"), parts, torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 0, 0, 1]))


def split_into(atoms: Tensor, unit_of_atom: list[int] | None) -> Evaluation:
    parents = None if unit_of_atom is None else torch.tensor(unit_of_atom)
    split = evaluation(n_units=3, n_atoms=len(atoms), truth=truth(), dictionaries={"input": atoms})
    split.unit_of_atom = parents
    return split


def test_part_cosine_is_within_the_unit_where_units_are_split() -> None:
    atoms, parents = torch.randn(6, 6, generator=generator(8)), [0, 0, 0, 1, 2, 2]
    cosines = cosine_similarity(truth().parts.numpy(), atoms.numpy())
    of_unit = [max(cosines[part, atom] for atom in range(6) if parents[atom] == unit)
               for part, unit in enumerate(truth().unit_of_part.tolist())]  # fmt: skip
    value = PlantedParts(split_into(atoms, parents)).compute()["part_cosine"]
    assert number(value) == pytest.approx(np.mean(of_unit), abs=1e-6)
    anywhere = PlantedParts(split_into(atoms, None)).compute()["part_cosine"]
    assert number(anywhere) == pytest.approx(cosines.max(axis=1).mean(), abs=1e-6)
    assert number(anywhere) > number(value)


def test_the_planted_parts_are_found_whole_in_any_order_and_at_any_scale() -> None:
    order = torch.tensor([3, 0, 2, 4, 1])
    facts = split_into(2 * truth().parts[order], truth().unit_of_part[order].tolist())
    values = PlantedParts(facts).compute()
    assert number(values["part_cosine"]) == pytest.approx(1, abs=1e-6)
    assert number(values["parts_found_ratio"]) == 1
    assert number(values["parts_exact_share"]) == 100


def test_parts_are_counted_by_unit() -> None:
    values = PlantedParts(split_into(torch.eye(6), [0, 0, 0, 0, 1, 2])).compute()
    assert number(values["parts_found_ratio"]) == pytest.approx((4 / 2 + 1 / 1 + 1 / 2) / 3)
    assert number(values["parts_exact_share"]) == pytest.approx(100 / 3)
    assert values["parts_exact_share"].interval == "wilson over units"


def test_a_unit_without_atoms_and_a_dead_atom_find_nothing() -> None:
    atoms = truth().parts.clone()
    atoms[2] = 0
    value = PlantedParts(split_into(atoms, [0, 0, 1, 0, 0])).compute()["part_cosine"]
    assert number(value) == pytest.approx(2 / 5, abs=1e-6)


def test_without_a_truth_or_without_parts_there_is_a_reason() -> None:
    without = split_into(torch.eye(6), None)
    values = PlantedParts(without).compute()
    assert values["parts_found_ratio"].reason == "the method does not split units"
    without.dictionaries = {}
    assert (
        PlantedParts(without).compute()["part_cosine"].reason == "the method's atoms are no directions among the inputs"
    )
    without.truth = None
    assert all("nobody knows" in (value.reason or "") for value in PlantedParts(without).compute().values())

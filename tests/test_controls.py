"""The controls: a random partition, principal components, random directions."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as ReferencePCA

from bench.activations import TensorSource
from bench.planted import planted
from methods import controls
from methods.controls import PCA, RandomDirections, RandomPartition
from methods.elude import ELUDe


def test_random_partition_copies_the_parts_and_nothing_else() -> None:
    source = planted()
    leader = ELUDe(top_k=0.2, min_cluster_size=5).decompose(source, seed=0)
    found = RandomPartition().decompose_like(source, leader, seed=3)
    other = RandomPartition().decompose_like(source, leader, seed=4)
    assert found.unit_of_atom is not None
    assert leader.unit_of_atom is not None
    assert torch.equal(found.unit_of_atom, leader.unit_of_atom)
    assert leader.n_atoms > 12
    assert not torch.equal(found.tensors["owns"], leader.tensors["owns"])
    assert not torch.equal(found.tensors["owns"], other.tensors["owns"])
    owned = torch.zeros(12, 40).index_add_(0, found.unit_of_atom, found.tensors["owns"].float())
    assert torch.equal(owned, torch.ones(12, 40))


def test_random_partition_without_a_leader_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="like: 'elude' was not decomposed first"):
        RandomPartition().decompose(planted(), seed=0)


def test_components_are_those_of_another_library() -> None:
    source = planted(frozenset({"outputs"}))
    found = PCA().decompose(source, seed=0)
    reference = ReferencePCA(svd_solver="full").fit(source.outputs.double().numpy())
    directions = found.tensors["directions"].numpy()
    assert np.allclose(np.abs(directions @ reference.components_.T), np.eye(12), atol=1e-7)
    assert np.allclose(found.tensors["variances"].numpy() * 600 / 599, reference.explained_variance_)
    assert np.allclose(found.tensors["mean"].numpy(), reference.mean_)
    largest = np.abs(directions).argmax(axis=1)
    assert (directions[np.arange(12), largest] > 0).all()


def test_components_do_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PCA().decompose(planted(), seed=0)
    monkeypatch.setattr(controls, "BATCH_TOKENS", 7)
    parts = PCA().decompose(planted(), seed=1)
    assert torch.allclose(whole.tensors["directions"], parts.tensors["directions"], atol=1e-9)


def test_components_of_what_is_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="outputs: got a value that is not finite"):
        PCA().decompose(TensorSource(None, torch.full((3, 2), torch.nan)), seed=0)


def test_random_directions_have_unit_length_and_lose_nothing() -> None:
    method = RandomDirections(expansion_factor=1.5)
    found = method.decompose(planted(), seed=3)
    tokens = planted().read(slice(None))
    assert found.n_atoms == 18
    assert torch.allclose(found.tensors["directions"].norm(dim=1), torch.ones(18, dtype=torch.float64))
    assert torch.allclose(method.decode(found, method.encode(found, tokens)), tokens.outputs, atol=1e-4)
    other = method.decompose(planted(), seed=4)
    assert not torch.allclose(found.tensors["directions"], other.tensors["directions"])
    with pytest.raises(ValueError, match=r"expansion_factor: got 0\.5; expected at least 1; raise it"):
        RandomDirections(expansion_factor=0.5)

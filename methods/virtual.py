"""Virtual units: PURE (Dreyer et al. 2024) and DNRwCV (O'Mahony et al. 2023), which leave the network as it is.

Both take the images that drive a unit most, cluster what they find there, and read each cluster as a unit of its own
beside the network. PURE clusters where in the layer below the activation comes from, and hands the unit's activation
to one part per image; DNRwCV clusters the pooled outputs, and its units are directions among them. Where our reading
differs from the authors' code, it says so.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from methods.centroids import kmeans, nearest
from methods.images import batches_of_images, images_of, side_by_side, strongest_images
from methods.instances import top_instances
from methods.partition import parents
from methods.protocol import Activations, ActivationSource, Codes, Decomposition, Dictionaries, Properties

CHUNK_ELEMENTS = 2**25
"""Attributions held at once in `encode`: images x units x d_in."""
EPSILON = 1e-10
"""Added to the L1 norm of an attribution (the authors'), so that an attribution of zero stays zero."""
ROUNDING = 1e-5
"""Vectors that are nearer to each other than this share of their length differ by rounding alone."""
REFERENCE_DISTANCE = 30**0.5
"""Median pairwise distance of a unit's top images to which `DNRwCV.rescale` brings a site; the reason stands there."""

VIRTUAL = Properties(stable=True, training_free=True, explicit=False, lossless=True, unsupervised=True)
Weighting = Literal["positive", "activation"]


@dataclass(frozen=True)
class PURE:
    """Splits each unit by what drives it from the layer below, image by image (Dreyer et al. 2024, arXiv:2404.06453).

    Attributes:
        n_images: Images per unit, those of the largest activation. Images in which the unit is never positive have
            no attribution and are left out (the authors' code keeps them, as zeros).
        n_parts: Virtual units per unit, the k of k-means: the authors go from 2 to 5; 2 is their code's default.
        n_init: Starts of k-means; the best is kept.
        kmeans_seed: Draws those starts. A fixed option and not the run's seed, as in the authors' code: that is what
            makes the method stable.
        weighting: How positions are summed. "positive" attributes the positive part of the activation, so each
            position where the unit is positive counts once. The authors' code starts its gradient from the
            activation itself, so that positions count by it: "activation".
    """

    n_images: int = 100
    n_parts: int = 2
    n_init: int = 10
    kmeans_seed: int = 0
    weighting: Weighting = "positive"

    reads: ClassVar[frozenset[str]] = frozenset({"inputs", "outputs", "weight", "images"})
    properties: ClassVar[Properties] = VIRTUAL
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        refuse_below(self, n_images=2, n_init=1, kmeans_seed=0)
        if not 2 <= self.n_parts <= 5:
            raise ValueError(f"n_parts: got {self.n_parts}; expected 2 to 5, as the authors have it; change it")

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """The centroids of every unit's attributions; the seed changes nothing (see `kmeans_seed`).

        Raises:
            ValueError: Activations are not finite, or there are no images.
        """
        weight = activations.read(slice(0, 1)).needed_weight().cpu()
        images, values = strongest_images(activations, self.n_images)
        attributions = self.attributions(activations, images, weight)
        found = []
        for unit in range(len(weight)):
            activations.report("units", unit, len(weight))
            found.append(self.split(attributions[unit][values[unit] > 0].double().numpy()))
        activations.report("units", len(weight), len(weight))
        sizes = torch.tensor([len(centroids) for centroids, _ in found])
        return Decomposition(
            n_atoms=int(sizes.sum()),
            tensors={
                "centroids": torch.from_numpy(np.concatenate([one for one, _ in found])).to(attributions.dtype),
                "cluster_sizes": torch.from_numpy(np.concatenate([members for _, members in found])),
            },
            unit_of_atom=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
            notes={
                "images_per_unit": images.shape[1],
                "whole_units": int((sizes == 1).sum()),
                "units_never_positive": int((values <= 0).all(dim=1).sum()),
            },
        )

    def attributions(
        self, activations: ActivationSource, images: Int[Tensor, "units k"], weight: Float[Tensor, "units d_in"]
    ) -> Float[Tensor, "units k d_in"]:
        """What each input dimension gives to each unit in each of its images, at L1 norm 1; zero where it never fires.

        The images of all units are read once, in batches; of their positions only these sums are held.
        """
        units, k = images.shape
        needed, which = torch.unique(images, return_inverse=True)
        order = torch.argsort(which.flatten(), stable=True)
        uses = iter(order.split(torch.bincount(which.flatten(), minlength=len(needed)).tolist()))
        sums = torch.zeros(units * k, weight.shape[1], dtype=working_dtype(weight))
        for _, batch in batches_of_images(activations, needed, "top images"):
            for inputs, outputs in zip(batch.inputs, batch.outputs, strict=True):
                use = next(uses)
                shares = self.shares(outputs[:, (use // k).to(outputs.device)]).to(sums.dtype)
                sums[use] = (shares.T @ inputs.to(sums.dtype)).cpu()
        found = sums.view(units, k, -1)
        found *= weight[:, None]
        found /= found.abs().sum(dim=2, keepdim=True) + EPSILON
        return found

    def shares(self, outputs: Float[Tensor, "tokens units"]) -> Float[Tensor, "tokens units"]:
        """How much each position counts, by the unit's activation there."""
        return outputs.clamp_min(0) if self.weighting == "activation" else (outputs > 0).to(outputs.dtype)

    def split(
        self, points: Float[ndarray, "images d_in"]
    ) -> tuple[Float[ndarray, "parts d_in"], Int[ndarray, " parts"]]:
        """The centroids of one unit's attributions, the strongest image's first, and how many images each is of.

        One, their mean, and 0, where parts cannot be told apart: there are too few images, or the centroids differ by
        rounding alone. Zero where there is no image at all.
        """
        if len(points) >= self.n_parts:
            labels, centroids = kmeans(points, self.n_parts, n_init=self.n_init, random_state=self.kmeans_seed)
            length = np.linalg.norm(centroids, axis=1).max()
            if len(centroids) == self.n_parts and pdist(centroids).min() > ROUNDING * length:
                return centroids, np.bincount(labels)
        return points.sum(axis=0, keepdims=True) / max(len(points), 1), np.zeros(1, dtype=np.int64)

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The unit's activation for the part whose centroid is nearest to the image's attribution, zero for the others.

        Where a unit is never positive in an image, its attribution there is zero, and so goes to the centroid nearest
        to zero. Codes of a unit's parts sum to it exactly.

        Raises:
            ValueError: Tokens do not come as whole images.
        """
        outputs = activations.outputs
        dtype, device = working_dtype(outputs), outputs.device
        if activations.image_of_token is None:
            raise ValueError('image_of_token: got None; expected whole images; declare "images" in the method\'s reads')
        _, image, counts = torch.unique_consecutive(
            activations.image_of_token.to(device), return_inverse=True, return_counts=True
        )
        weight = activations.needed_weight().to(device, dtype)
        inputs = side_by_side(activations.needed_inputs().to(dtype), counts)
        shares = side_by_side(self.shares(outputs).to(dtype), counts)
        parts = torch.bincount(parents(decomposition).to(device), minlength=len(weight))
        centroids = side_by_side(decomposition.tensors["centroids"].to(device, dtype), parts)
        part = torch.empty(len(counts), len(weight), dtype=torch.int64, device=device)
        for units in torch.arange(len(weight), device=device).split(max(1, CHUNK_ELEMENTS // inputs[:, 0].numel())):
            points = (shares[:, :, units].transpose(1, 2) @ inputs) * weight[units]
            points /= points.abs().sum(dim=2, keepdim=True) + EPSILON
            part[:, units] = nearest(points.transpose(0, 1), centroids[units], parts[units]).T
        atom = parts.cumsum(0) - parts + part
        return outputs.new_zeros(len(outputs), decomposition.n_atoms).scatter_(1, atom[image], outputs)

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """The centroids, the share of each dimension in what drives the part, are "input"."""
        return {"input": decomposition.tensors["centroids"].to(weight)}


@dataclass(frozen=True)
class DNRwCV:
    """Concept vectors: directions in which a unit's top images lie (O'Mahony et al. 2023, arXiv:2304.09707).

    Per unit, Ward's agglomeration of its top images' pooled outputs says how many clusters there are, k-means finds
    that many, and points far from their centroid and small clusters go. A unit has several concept vectors or none.

    Attributes:
        n_images: Images per unit, those of the largest mean activation.
        threshold: In the authors' code one number with two uses: clusters merge below it (Ward's distance), and
            points go whose squared distance to their centroid reaches it. It was set for Inception V3's Mixed_7b,
            where it gave 4,232 vectors for 2,048 units, none for 15 of them.
        rescale: Scale the points before both uses, as the two change with the scale differently: so that the median
            over units of the median pairwise distance of their top images is sqrt(30). The authors' own median is
            not published; at that one, and their threshold, an unstructured set stands at the border of being
            dropped (its points' mean squared distance to their centroid is half of that between pairs), which fits
            their counts. This is our choice. Points that differ by rounding alone are left as they are.
        min_members: Fewest points of a cluster that gives a concept vector.
        n_init: Starts of k-means; the best is kept.
        max_iter: Most iterations of k-means.
        kmeans_seed: Draws those starts; a fixed option and not the run's seed, as in the authors' code.
    """

    n_images: int = 100
    threshold: float = 15.0
    rescale: bool = True
    min_members: int = 5
    n_init: int = 5
    max_iter: int = 1000
    kmeans_seed: int = 0

    reads: ClassVar[frozenset[str]] = frozenset({"outputs", "images"})
    properties: ClassVar[Properties] = VIRTUAL
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        refuse_below(self, n_images=2, min_members=1, n_init=1, max_iter=1, kmeans_seed=0)
        if not self.threshold > 0:
            raise ValueError(f"threshold: got {self.threshold}; expected a positive number; raise it")

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """The concept vectors of every unit; the seed changes nothing (see `kmeans_seed`).

        The pooled outputs of all images are held: images x units.

        Raises:
            ValueError: Activations are not finite, there are no images, or no unit has a concept vector.
        """
        n = images_of(activations).n_images
        batches = batches_of_images(activations, torch.arange(n), "images")
        pooled = torch.cat([b.outputs.double().mean(dim=1).to(b.outputs.dtype).cpu() for _, b in batches])
        tops = [top_instances(values, min(self.n_images, n)) for values in pooled.unbind(dim=1)]
        median = float(np.median([np.median(pdist(pooled[rows].double().numpy())) for rows in tops])) if n > 1 else 0.0
        length = float(pooled.double().norm(dim=1).median())
        scale = REFERENCE_DISTANCE / median if self.rescale and median > ROUNDING * length else 1.0
        found = []
        for unit, rows in enumerate(tops):
            activations.report("units", unit, len(tops))
            found.append(self.concepts(scale * pooled[rows].double().numpy()))
        activations.report("units", len(tops), len(tops))
        sizes = torch.tensor([len(vectors) for vectors, _ in found])
        if not sizes.any():
            raise ValueError(
                f"threshold: got {self.threshold}, at which no unit has {self.min_members} images close enough to "
                f"each other; expected one at which some have; raise it, lower min_members, or take more images"
            )
        return Decomposition(
            n_atoms=int(sizes.sum()),
            tensors={
                "vectors": torch.from_numpy(np.concatenate([one for one, _ in found])).float(),
                "cluster_sizes": torch.from_numpy(np.concatenate([members for _, members in found])),
            },
            unit_of_atom=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
            notes={
                "units_without_concepts": int((sizes == 0).sum()),
                "most_concepts_of_a_unit": int(sizes.max()),
                "median_distance": median,
                "scale": scale,
            },
        )

    def concepts(
        self, points: Float[ndarray, "images units"]
    ) -> tuple[Float[ndarray, "concepts units"], Int[ndarray, " concepts"]]:
        """The unit-norm concept vectors of one unit's top images, the strongest image's cluster first, and its images.

        Points that were dropped for their distance count in no cluster.
        """
        n = 1
        if len(points) > 1:
            ward = AgglomerativeClustering(n_clusters=None, distance_threshold=self.threshold, linkage="ward")
            n = int(ward.fit(points).n_clusters_)
        labels, centroids = kmeans(points, n, n_init=self.n_init, max_iter=self.max_iter, random_state=self.kmeans_seed)
        close = np.square(points - centroids[labels]).sum(axis=1) < self.threshold
        members = close & (labels == np.arange(len(centroids))[:, None])
        members = members[members.sum(axis=1) >= self.min_members]
        means = members @ points  # sums, which point where the means do
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        there = lengths[:, 0] > 0
        return means[there] / lengths[there], members[there].sum(axis=1)

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The projection of each token's outputs on each concept vector."""
        return activations.outputs @ decomposition.tensors["vectors"].to(activations.outputs).T

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """The concept vectors are "output"."""
        return {"output": decomposition.tensors["vectors"].to(weight)}


def refuse_below(method: PURE | DNRwCV, **least: int) -> None:
    """Go on where each named option is at least this.

    Raises:
        ValueError: One is below.
    """
    for name, bound in least.items():
        if getattr(method, name) < bound:
            raise ValueError(f"{name}: got {getattr(method, name)}; expected at least {bound}; raise it")


def working_dtype(values: Tensor) -> torch.dtype:
    """The dtype that attributions are computed in: that of the values, and float32 at least."""
    return torch.promote_types(values.dtype, torch.float32)

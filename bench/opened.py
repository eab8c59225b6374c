"""A finished cell in a notebook: its method, its decomposition, and the network it is of.

Nothing is computed here and nothing written: what the run left in the cache is read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from bench import UsageError
from bench.cache import Cache, Looking, NotCachedError, default_cache
from bench.changes import Changes
from bench.decompositions import chosen_cell
from bench.folder import changes_of
from bench.lanes import quietly
from bench.registry import Registry
from bench.stages import StartWorkshop
from bench.suites import load_suite
from methods.protocol import Decomposition, Method


@dataclass(frozen=True, eq=False)
class Opened:
    """A finished cell.

    Attributes:
        method: The method with its options; of a swept cell, the variant that was chosen.
        decomposition: What it found.
        network: The backbone, in eval mode.
        path: Module path of the site in it.
        images: The evaluation split, as the network takes it.
    """

    method: Method
    decomposition: Decomposition
    network: nn.Module
    path: str
    images: Float[Tensor, "images 3 height width"]


@dataclass(frozen=True)
class StartLooking(StartWorkshop):
    """A workshop over a cache that is only looked at."""

    kind_of_cache: ClassVar[type[Cache]] = Looking


def opened(
    suite: str,
    cell: str,
    *,
    n_images: int = 64,
    plugins: tuple[Path, ...] = (),
    cache: Path | None = None,
    run: Path | None = None,
) -> Opened:
    """A cell of a suite that was run.

    Args:
        suite: A shipped suite, or the path of a .toml file.
        cell: As `eludebench plan` names it: SITE/LABEL/tSEED/iSEED.
        n_images: How many images of the evaluation split to read.
        plugins: Plugin files of the run.
        cache: Its cache, if not the default one.
        run: Its folder, for a run whose command line said more than the suite (`--data`, `--scale`, ...).

    Raises:
        UsageError: There is no such suite or cell, or the cache does not hold what was made of it.
    """
    chosen = chosen_cell(load_suite(suite, Registry(plugins), changes_of(run) if run else Changes()), cell)
    where = cache or default_cache()
    workshop = StartLooking(plugins, where).workshop(quietly, lambda text: None)
    try:
        settled = workshop.settled(chosen)
        decomposition, site = workshop.decomposition(settled), workshop.site(chosen.site)
    except NotCachedError as error:
        raise UsageError(
            f"cell: {cell} is not in the cache at {where}; expected one that was run; `eludebench run {suite}` first"
        ) from error
    images = site.backbone.transform(workshop.dataset(chosen.site).test.images(slice(0, n_images)))
    return Opened(settled.method.built, decomposition, site.backbone.module, site.path, images)

"""A cell's decomposition in a folder of its own, for other programs."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import UsageError
from bench.cells import Cell
from bench.lanes import one_line
from bench.new_folder import new_folder
from methods.autoencoder import Autoencoder
from methods.sae import TopKSAE
from methods.saelens import export_saelens

if TYPE_CHECKING:
    from bench.stages import Workshop

ARTIFACT = ("model.safetensors", "config.json")


def written(workshop: "Workshop", cell: Cell, folder: Path, form: str) -> None:
    """Write the decomposition of a cell, found first if the cache does not have it.

    Args:
        workshop: Where it is found.
        cell: Whose it is.
        folder: A new or empty folder.
        form: "own" for the safetensors file and JSON header that are kept here, "saelens" for SAELens 6.

    Raises:
        UsageError: The folder is taken, or the method cannot be said in that form or decomposed.
        StorageError: The folder cannot be written.
    """
    named, method = cell.method.entry.name, cell.method.built
    if form == "saelens" and not (isinstance(method, Autoencoder) and method.activation):
        raise UsageError(
            f"--format: SAELens has no form for {named!r}; expected an autoencoder with an encoder of the outputs; "
            "use --format own"
        )
    with new_folder(folder, "--to") as aside:
        try:
            settled = workshop.settled(cell)
            found = workshop.decomposition(settled)
        except (ValueError, ArithmeticError, LookupError) as error:
            raise UsageError(f"CELL: {cell.name} cannot be decomposed: {one_line(error)}") from error
        method, site = settled.method.built, workshop.site(cell.site)
        if form == "own":
            kept = workshop.cache.folder("decompositions", workshop.decomposition_key(settled))
            for name in ARTIFACT:
                shutil.copyfile(kept / name, aside / name)
        elif isinstance(method, Autoencoder) and method.activation:
            header: dict[str, Any] = {"hook_name": site.path, "model_name": site.backbone.name, "cell": cell.id}
            k = method.active(found.n_atoms) if isinstance(method, TopKSAE) and method.activation == "topk" else None
            export_saelens(found, aside, activation=method.activation, header=header, k=k)

"""A decomposition on disk: `model.safetensors` and `config.json`, for every method alike; nothing is pickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import torch as safetensors

from methods.protocol import Decomposition

SCHEMA = 1
PARENTS = "unit_of_atom"


def save(decomposition: Decomposition, folder: Path, header: Mapping[str, Any]) -> None:
    """Write the two files into `folder`; `header` says where it comes from (method, options, site, backbone)."""
    tensors = {f"tensors.{name}": tensor.contiguous() for name, tensor in decomposition.tensors.items()}
    if decomposition.unit_of_atom is not None:
        tensors[PARENTS] = decomposition.unit_of_atom.contiguous()
    # Serialised first and written by Python, so that a full disk is an OSError like everywhere else.
    (folder / "model.safetensors").write_bytes(safetensors.save(tensors))
    config = {
        "schema": SCHEMA,
        "n_atoms": decomposition.n_atoms,
        "notes": dict(decomposition.notes),
        "shapes": {name: list(tensor.shape) for name, tensor in sorted(tensors.items())},
        **header,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load(folder: Path) -> Decomposition:
    """The decomposition that `save` wrote.

    Raises:
        ValueError: It was written by a newer version.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["schema"] > SCHEMA:
        raise ValueError(f"{folder}: got schema {config['schema']}; expected at most {SCHEMA}; update eludebench")
    tensors = safetensors.load_file(folder / "model.safetensors")
    return Decomposition(
        n_atoms=config["n_atoms"],
        tensors={name.removeprefix("tensors."): t for name, t in tensors.items() if name != PARENTS},
        unit_of_atom=tensors.get(PARENTS),
        notes=config["notes"],
    )

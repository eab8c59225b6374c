"""The file that `new-method` writes: a whole method in under 40 lines, ready to be changed."""

from bench import UsageError

TEMPLATE = '''\
"""{title}: a method for eludebench. Try it: eludebench check-method {name} --plugin {file}"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from methods.protocol import Activations, ActivationSource, Codes, Decomposition, Properties


@dataclass(frozen=True)
class {title}:
    """Rotates the units by the eigenvectors of their second moments; replace it with your idea.

    Attributes:
        n_atoms: How many directions to keep; 0 keeps all.
    """

    n_atoms: int = 0

    reads: ClassVar[frozenset[str]] = frozenset({{"outputs"}})  # and "inputs", "weight" if you need them
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=True, explicit=True, lossless=False, unsupervised=True
    )
    version: ClassVar[int] = 1  # raise it when the same options would give another result

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        moments = sum(batch.outputs.T @ batch.outputs for batch in activations.batches(4096))
        directions = torch.linalg.eigh(moments).eigenvectors.flip(1).T[: self.n_atoms or None].contiguous()
        return Decomposition(n_atoms=len(directions), tensors={{"directions": directions}})

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs @ decomposition.tensors["directions"].T

    def decode(self, decomposition: Decomposition, codes: Codes) -> torch.Tensor:
        return codes @ decomposition.tensors["directions"]


METHODS = {{"{name}": {title}}}
'''


def method_file(name: str, file: str) -> str:
    """The text of a new method's file.

    Raises:
        UsageError: The name is no lower-case Python name.
    """
    if not name.isidentifier() or name != name.lower():
        raise UsageError(f"NAME: got {name!r}; expected a lower-case Python name such as my_method; choose one")
    return TEMPLATE.format(name=name, title="".join(part.capitalize() for part in name.split("_")), file=file)

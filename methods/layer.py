"""The disentangled layer: a linear layer or 1x1 convolution that knows the parts of its units (ELUDe, 3.4, eq. 8, B.4).

It is put in the layer's place and holds it. There are two ways to give the outputs:

- "exact": the layer itself is called. The network's outputs are what they were, bit for bit, in every dtype; parts
  are computed beside it, and only those that somebody asks for: all, some, or none at all.
- "sum": the outputs are the sums of the parts, as in the paper. Equal up to rounding, which is what the bench
  measures when it asks whether a decomposition is lossless.

The weights of parts are never stored. They are a mask times the kernel, made when somebody asks, in a small part of
the time that the codes of a batch take. So a layer that nobody asks holds a bit per part and weight, and a byte per
weight of the kernel; and casting the kernel casts its parts, unrounded.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from methods.parts import Parts, packed, part_weights, summed_by_unit, unpacked
from methods.seals import check_seal

Linear = nn.Linear | nn.Conv2d
Merge = Literal["exact", "sum"]
MERGES: tuple[Merge, ...] = get_args(Merge)


@dataclass(eq=False)
class Asked:
    """What somebody asked a layer for.

    Attributes:
        atoms: Which atoms; None for all.
        codes: Their codes in the layer's last pass, atoms where the units are; None before the first.
    """

    atoms: Int[Tensor, " chosen"] | None
    codes: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Affine:
    """An edit of codes: `scale` times the code, plus `shift`. Numbers, or tensors that broadcast to the codes.

    Scale 0 sets a code to the shift. A tensor has one entry per edited atom as its last dimension, or 1.
    """

    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0

    def __call__(self, codes: Float[Tensor, "*batch chosen"]) -> Float[Tensor, "*batch chosen"]:
        """The codes after the edit."""
        return codes * self.scale + self.shift


@dataclass(frozen=True, eq=False)
class Steering:
    """An edit under way: `order` sorts the atoms by unit, `place` is each one's among the `units` that have any."""

    edit: Callable[[Tensor], Tensor]
    atoms: Int[Tensor, " chosen"]
    order: Int[Tensor, " chosen"]
    place: Int[Tensor, " chosen"]
    units: Int[Tensor, " touched"]


class DisentangledLayer(nn.Module):
    """A linear layer or 1x1 convolution, and the parts of its units.

    Codes have atoms where the outputs have units: last after a linear layer, as channels after a convolution. Its
    state is that of the layer under the layer's own names, and the parts: a checkpoint of the untouched network loads,
    strictly too, and leaves the parts as they are. `torch.compile` and `copy.deepcopy` take it as it is.

    Attributes:
        plain: The layer that it stands for, untouched.
        merge: How the outputs are made, "exact" or "sum".
        bits: Which weights each part holds, packed.
        unit_of_atom: The unit of each part.
        divisors: What a held weight is divided by.
        shares: Shares of the bias; float64 seen as int64, since `.to(bfloat16)` would round the former for good.
        signs: 1 or -1 for each part; None where all add.
    """

    bits: Tensor
    unit_of_atom: Tensor
    divisors: Tensor
    shares: Tensor
    signs: Tensor | None

    def __init__(self, plain: Linear, parts: Parts, merge: Merge = "exact", where: str = "the layer") -> None:
        """The layer in place of `plain`; `where` is what errors call it.

        Raises:
            ValueError: An unknown merge, parts of other units, or of another kernel.
        """
        super().__init__()
        if merge not in MERGES:
            raise ValueError(f"merge: got {merge!r}; expected one of {', '.join(MERGES)}; choose one")
        kernel = tuple(plain.weight.flatten(1).shape)
        if kernel != (split := tuple(parts.divisors.shape)):
            raise ValueError(
                f"parts: {where} has a kernel of {kernel[0]} x {kernel[1]}; expected {split[0]} x {split[1]}, which "
                f"the decomposition is of; choose the site that it was made at"
            )
        self.plain = plain
        self.merge = merge
        self.where = where
        self.notes = dict(parts.notes)
        self.asked: Asked | None = None
        self.steered: Steering | None = None
        device = plain.weight.device
        self.register_buffer("bits", packed(parts.holds).to(device))
        self.register_buffer("unit_of_atom", parts.unit_of_atom.to(device))
        self.register_buffer("divisors", parts.divisors.to(device))
        self.register_buffer("shares", parts.bias_shares.double().view(torch.int64).to(device))
        self.register_buffer("signs", None if parts.signs is None else parts.signs.to(device))
        self.register_state_dict_post_hook(under_plain_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(check_kernel)  # type: ignore[no-untyped-call]
        self.check()

    @property
    def weight(self) -> Tensor:
        """The layer's own kernel."""
        return self.plain.weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's own bias."""
        return self.plain.bias

    @property
    def axis(self) -> int:
        """Where units and atoms are."""
        return -3 if isinstance(self.plain, nn.Conv2d) else -1

    def check(self) -> None:
        """Nothing, where the kernel is that which the parts are of; ValueError otherwise (`methods.seals`).

        Done when the layer is made and when a checkpoint is loaded into it; whoever changes the kernel in place, by
        training it say, calls this to know.
        """
        check_seal(self.notes, self.weight.flatten(1), self.bias, self.where)

    def weights(
        self, atoms: Int[Tensor, " chosen"] | None = None
    ) -> tuple[Float[Tensor, "chosen d_in"], Float[Tensor, " chosen"]]:
        """Weight and bias of these parts, or of all."""
        bits, unit_of_atom, shares = self.bits, self.unit_of_atom, self.shares.view(torch.float64)
        if atoms is not None:
            bits, unit_of_atom, shares = bits[atoms], unit_of_atom[atoms], shares[atoms]
        kernel = self.weight.flatten(1)
        holds = unpacked(bits, kernel.shape[1])
        return part_weights(holds, unit_of_atom, self.divisors, shares, kernel, self.bias)

    def codes(self, inputs: Tensor, atoms: Int[Tensor, " chosen"] | None = None) -> Tensor:
        """The activations of these parts, or of all, atoms where the units are."""
        weights, biases = self.weights(atoms)
        if isinstance(self.plain, nn.Conv2d):
            return functional.conv2d(inputs, weights[:, :, None, None], biases)
        return functional.linear(inputs, weights, biases)

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs of the layer, steered where it is steered; who asked is given the codes before any edit."""
        codes = None
        if self.merge == "sum" or (self.asked is not None and self.asked.atoms is None):
            codes = self.codes(inputs)
        outputs = self.plain(inputs) if self.merge == "exact" or codes is None else self.merged(codes)
        if self.asked is not None:
            self.asked.codes = self.chosen(codes, inputs, self.asked.atoms)
        if self.steered is not None:
            outputs = self.edited(outputs, self.chosen(codes, inputs, self.steered.atoms), self.steered)
        return outputs

    def chosen(self, codes: Tensor | None, inputs: Tensor, atoms: Tensor | None) -> Tensor:
        """The codes of these atoms, computed if they are not among codes that are there."""
        if codes is None:
            return self.codes(inputs, atoms)
        return codes if atoms is None else codes.index_select(self.axis, atoms)

    def merged(self, codes: Tensor) -> Tensor:
        """The sums of the parts."""
        n_units = self.weight.shape[0]
        sums = summed_by_unit(codes.movedim(self.axis, -1), self.unit_of_atom, n_units, self.signs)
        return sums.movedim(-1, self.axis)

    def edited(self, outputs: Tensor, codes: Tensor, steering: Steering) -> Tensor:
        """Outputs plus what the edit changed; where that is nothing they keep their bits, a zero's sign too."""
        before = codes.movedim(self.axis, -1)
        change = steering.edit(before) - before
        if self.signs is not None:
            change = change * self.signs[steering.atoms]
        change = summed_by_unit(change.index_select(-1, steering.order), steering.place, len(steering.units))
        change = change.movedim(-1, self.axis)
        own = outputs.index_select(self.axis, steering.units)
        moved = torch.where(change == 0, own, own + change).to(outputs.dtype)
        return outputs.index_copy(self.axis, steering.units, moved)

    @contextmanager
    def asking(self, atoms: Sequence[int] | Int[Tensor, " chosen"] | None = None) -> Iterator[Asked]:
        """Within, every pass leaves the codes of these atoms, or of all, in what this gives.

        Raises:
            ValueError: There are no such atoms, or somebody is asking already.
        """
        if self.asked is not None:
            raise ValueError("atoms: asked for within another asking; expected one at a time; end the other first")
        self.asked = Asked(None if atoms is None else self.known(atoms))
        try:
            yield self.asked
        finally:
            self.asked = None

    @contextmanager
    def steering(
        self, atoms: Sequence[int] | Int[Tensor, " chosen"], edit: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """Within, the outputs are those with the codes of these atoms edited; only their parts are computed.

        Args:
            atoms: Which, each once.
            edit: From codes of these atoms (... x chosen, atoms last also after a convolution) to others of that
                shape: an `Affine`, or any function of the codes.

        Raises:
            ValueError: There are no such atoms, one is named twice, or the layer is steered already.
        """
        if self.steered is not None:
            raise ValueError("atoms: steered within another steering; expected one at a time; put all atoms into one")
        chosen = self.known(atoms)
        if len(chosen.unique()) != len(chosen):
            raise ValueError(f"atoms: got {chosen.tolist()}; expected each once; leave out the repeated ones")
        parents, order = self.unit_of_atom[chosen].sort(stable=True)
        units, place = parents.unique_consecutive(return_inverse=True)
        self.steered = Steering(edit, chosen, order, place, units)
        try:
            yield
        finally:
            self.steered = None

    def known(self, atoms: Sequence[int] | Int[Tensor, " chosen"]) -> Int[Tensor, " chosen"]:
        """The atoms, on the layer's device; ValueError where they are none of its."""
        n_atoms, atoms = len(self.unit_of_atom), torch.as_tensor(atoms)
        if atoms.ndim != 1 or len(atoms) == 0 or int(atoms.min()) < 0 or int(atoms.max()) >= n_atoms:
            raise ValueError(f"atoms: got {atoms.tolist()}; expected some from 0 to {n_atoms - 1}; change it")
        return atoms.to(self.unit_of_atom.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {f"{prefix}{name}": buffer for name, buffer in self._buffers.items() if buffer is not None}
        for key in [key for key in state_dict if key.startswith(prefix) and key not in own]:
            state_dict[f"{prefix}plain.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        if not own.keys() & state_dict.keys():  # a checkpoint of the untouched network
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)


def under_plain_names(_module: nn.Module, state_dict: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """A state in which what the layer holds has the names that it had before."""
    inner = f"{prefix}plain."
    for key in [key for key in state_dict if key.startswith(inner)]:
        state_dict[prefix + key.removeprefix(inner)] = state_dict.pop(key)


def check_kernel(module: DisentangledLayer, _incompatible: Any) -> None:
    """After a checkpoint was loaded: its kernel must be the one that the parts are of."""
    module.check()

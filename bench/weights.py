"""Where weights are, whether they are the right ones, and how they are read.

The user's own caches are looked at first: that of Hugging Face's hub and torch.hub's checkpoints. Only what is in
neither is downloaded, with the library's own means, and not at all where its offline switch (HF_HUB_OFFLINE) is set.
Random weights are made only for those who ask for them. Every record holds the SHA-256 of the file.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import constants, errors
from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench import UsageError

RANDOM = "random"
ABSENT = "absent"
INDEX = "model.safetensors.index.json"
FILES = ("model.safetensors", INDEX, "pytorch_model.bin")
NESTED = ("state_dict", "model", "model_state_dict", "teacher")
PREFIXES = (
    "", "module.", "model.", "module.model.", "backbone.", "encoder.", "vision_model.", "model.vision_model.",
    "vision_tower.", "vision_tower.vision_model.", "model.vision_tower.", "model.vision_tower.vision_model.",
)  # fmt: skip
"""What may stand before a network's own names: of a parallel wrapper, of a training's, of a larger model it is in."""
RESIDUAL_SCALES = (".gamma", ".lambda1", ".gamma_1", ".gamma_2")
N_NAMED = 3


@dataclass(frozen=True)
class Origin:
    """What a backbone's weights are called where they are published.

    Attributes:
        name: What messages call it.
        repository: On Hugging Face's hub; empty where they are not there.
        address: Of the file that torch.hub keeps; empty where there is none. It is looked for first.
        files: Names that the file may have in the repository, in order of preference.
    """

    name: str
    repository: str = ""
    address: str = ""
    files: tuple[str, ...] = FILES

    @property
    def checkpoint(self) -> Path | None:
        """Where torch.hub keeps the file, whether or not it is there."""
        if not self.address:
            return None
        return Path(torch.hub.get_dir()) / "checkpoints" / self.address.rsplit("/", 1)[-1]

    def found(self) -> tuple[Path, ...]:
        """The files of the weights, in the user's caches; empty where they are in none."""
        if self.checkpoint is not None and self.checkpoint.is_file():
            return (self.checkpoint,)
        for name in self.files if self.repository else ():
            path = huggingface_hub.try_to_load_from_cache(self.repository, name)
            if isinstance(path, str):
                whole = shards_of(Path(path))
                if all(one.is_file() for one in whole):
                    return whole
        return ()

    @property
    def wanted(self) -> str:
        """What to fetch and where it is expected, in words."""
        ways = []
        if self.checkpoint is not None:
            ways.append(f"{'/'.join(self.address.split('/')[3:])} as {self.checkpoint}")
        if self.repository:
            cache = constants.HF_HUB_CACHE
            ways.append(f"{self.files[0]} of {self.repository} in {cache} (`hf download {self.repository}`)")
        return ", or ".join(ways) or "a file, by path"

    def fetched(self) -> tuple[Path, ...]:
        """The files of the weights, downloaded where the caches hold none.

        Raises:
            UsageError: They are neither there nor to be had; the message says what to fetch, and where to put it.
        """
        if found := self.found():
            return found
        reasons = []
        for fetch in (self.from_torch_hub, self.from_hugging_face):
            try:
                fetch()
            except Exception as error:  # whatever a network has against it
                reasons.append(str(error).strip().split("\n")[0].split("Traceback")[0])
            if found := self.found():
                return found
        why = "; ".join(dict.fromkeys(filter(None, reasons))) or "no place to fetch them from is known"
        raise UsageError(
            f"weights: {self.name} has none here and none could be fetched ({why}); expected {self.wanted}; put them "
            "there, give a file with --weights NAME=PATH, or rehearse with --random-weights"
        )

    def from_torch_hub(self) -> None:
        """Download the file that torch.hub keeps."""
        if self.checkpoint is None:
            return
        if constants.is_offline_mode():
            raise ConnectionError("HF_HUB_OFFLINE is set")
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(self.address, str(self.checkpoint), progress=False)

    def from_hugging_face(self) -> None:
        """Download the first of the files that the repository has, with its shards."""
        for name in self.files if self.repository else ():
            try:
                path = Path(huggingface_hub.hf_hub_download(self.repository, name))
            except errors.RemoteEntryNotFoundError:
                continue
            for shard in shards_of(path):
                huggingface_hub.hf_hub_download(self.repository, shard.name)
            return


def shards_of(path: Path) -> tuple[Path, ...]:
    """The files that an index names, in order; of anything else, itself."""
    if not path.name.endswith(".index.json"):
        return (path,)
    named = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    return tuple(path.parent / name for name in sorted(set(named.values())))


def given(place: str, files: tuple[str, ...] = FILES) -> tuple[Path, ...]:
    """The files of the weights at a path: itself, or those in a folder; empty where there is nothing."""
    path = Path(place).expanduser()
    if path.is_file():
        return shards_of(path)
    here = [path / name for name in files if (path / name).is_file()]
    here += [] if here else sorted([*path.glob("*.safetensors"), *path.glob("*.pth")])[:1]
    return shards_of(here[0]) if here else ()


def content_of(files: Iterable[Path]) -> str:
    """SHA-256, in hex, of one file, or of the hashes of several; "absent" for none. Kept until a file changes."""
    digests = []
    for path in files:
        about = path.stat()
        digests.append(digest_of(path, about.st_size, about.st_mtime_ns))
    if len(digests) < 2:
        return digests[0] if digests else ABSENT
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def digest_of(path: Path, _size: int, _mtime_ns: int) -> str:
    """SHA-256, in hex, of a file's bytes; size and time are there to forget it by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_of(files: Iterable[Path], expected: Iterable[str], also: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors of a network, in float32 and under its own names, and nothing of a larger model it may be part of.

    Args:
        files: Safetensors, or files of torch, which are read as tensors only.
        expected: The network's own names; the prefix is taken under which most of them are found.
        also: Further prefixes that the names may have in the files.

    Raises:
        UsageError: A file cannot be read.
    """
    expected = set(expected)
    readers = [reader_of(path) for path in files]
    names = {name for reader in readers for name in reader}
    prefix = max(
        (*PREFIXES, *also), key=lambda one: len(expected & {n.removeprefix(one) for n in names if n.startswith(one)})
    )
    found = {}
    for reader in readers:
        for name, read in reader.items():
            if name.startswith(prefix):
                tensor = read()
                found[name.removeprefix(prefix)] = tensor.float() if tensor.is_floating_point() else tensor
    return found


def reader_of(path: Path) -> dict[str, Callable[[], Tensor]]:
    """What reads each tensor of a file, by name."""
    try:
        if path.suffix == ".safetensors":
            file: Any = safe_open(path, framework="pt")
            names = file.offset_keys()  # in the order in which they lie in the file
            return {name: functools.partial(file.get_tensor, name) for name in names}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise whatever broken bytes lead to
        what = str(error).strip().split("\n")[0]
        raise UsageError(
            f"weights: {path} cannot be read ({what}); expected safetensors, or a file of torch that holds tensors "
            "only; fetch it again or give another with --weights NAME=PATH"
        ) from error
    while isinstance(state, Mapping) and (
        inner := next((key for key in NESTED if isinstance(state.get(key), Mapping)), "")
    ):
        state = state[inner]
    if not isinstance(state, Mapping):
        raise UsageError(f"weights: {path} holds a {type(state).__name__}; expected tensors by name; give another file")
    return {name: functools.partial(same, value) for name, value in state.items() if isinstance(value, Tensor)}


def same(tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


def problem_of(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], ignored: Iterable[str] = ()) -> str:
    """In what the tensors are not those that a network takes; empty where they are.

    Args:
        state: What there is.
        expected: What the network takes; shapes matter, values do not.
        ignored: Names that may be there and are not used.
    """
    missing = [name for name in expected if name not in state]
    surplus = sorted(state.keys() - expected.keys() - set(ignored))
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    kinds = {"missing": missing, "that it does not have": surplus, "of another shape": reshaped}
    return "; ".join(
        f"{len(names)} tensors {kind} ({', '.join(names[:N_NAMED])}{', ...' if len(names) > N_NAMED else ''})"
        for kind, names in kinds.items()
        if names
    )


def random_state(build: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    """The state of a network as its library initialises it, under a seed of its own.

    Scales of residual branches are set to 1: at the 1e-5 that they begin a training with, no layer would matter.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        state = {name: tensor.detach().clone() for name, tensor in build().state_dict().items()}
    for name, tensor in state.items():
        if name.endswith(RESIDUAL_SCALES):
            tensor.fill_(1.0)
    return state


class Unfilled(TorchFunctionMode):
    """Within, parameters are made without random numbers in them, for modules whose state is put in at once.

    Drawing them takes longer than everything else: 40 seconds for the 400 million of LLaVA's tower on one core.
    """

    # By name, since transformers puts functions of its own in the place of torch's while it makes a model.
    fills = frozenset(
        ["erfinv_", "mul_", "add_", "clamp_", *(name for name in dir(nn.init) if re.fullmatch(r"[a-z]\w*_", name))]
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("tensor")
        is_fill = isinstance(first, nn.Parameter) and getattr(func, "__name__", "") in self.fills
        return first if is_fill else func(*args, **kwargs)


def load_exactly(module: nn.Module, weights: Mapping[str, Any]) -> None:
    """Put in the module's own tensors; those of parts that it does not have are left out.

    Raises:
        RuntimeError: One is missing, or of another shape.
    """
    module.load_state_dict({name: weights[name] for name in module.state_dict() if name in weights}, strict=True)

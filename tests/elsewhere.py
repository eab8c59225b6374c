"""A made-up GPU: tensors that say that they are on "cuda:0", and refuse what a GPU's would refuse.

Within `Elsewhere()`, whatever is made on or moved to "cuda" is a `There`: it holds a tensor of the processor, on which
everything is computed, and stands before it. So data flow through real code, with the processor's rounding, on a
machine without a GPU. What is refused, as CUDA does: a tensor of the processor beside one from there, unless it is a
single number (of which torch makes a scalar) or an index; numpy; one of the processor indexed by one from there; a
random generator of the processor; and operations that have no deterministic kernel on a GPU.

What it cannot tell: kernels, rounding, memory, streams and time of a real GPU. `torch.cuda.is_available()` stays as it
is, so methods decompose on the processor. Nothing is lost silently: an operation that goes past Python's level comes
to `__torch_dispatch__`, and is held to the same rules.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._C import DisableTorchFunctionSubclass
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
MOVES = ("to", "cpu", "cuda", "copy_", "type_as", "_to_copy", "_copy_from", "grad", "data", "set_", "__deepcopy__")
"""Operations that may take tensors of two devices, or properties that are set."""
INDEXED = ("__getitem__", "__setitem__", "index_put_", "index", "index_put")
"""Operations whose indices may be the processor's, though what they index is not."""
NOT_POINTWISE = (
    "cat", "stack", "addmm", "addmm_", "mm", "matmul", "__matmul__", "linear", "conv2d", "gather", "scatter_",
    "index_add_", "index_select", "searchsorted", "bmm", "einsum", "repeat_interleave", "embedding_bag",
)  # fmt: skip
"""Operations that take no scalar of the processor either."""
OF_FLOATS = ("cumsum", "cumsum_", "cumprod", "histc", "kthvalue", "put_")
"""Those that CUDA has no deterministic kernel for, of floating-point numbers."""


class Mixed(RuntimeError):
    """Tensors of two devices met, or something was asked for that a GPU does not do."""


class There(Tensor):
    """A tensor on the made-up GPU."""

    inner: Any
    _is_param: bool

    @staticmethod
    def __new__(cls: type["There"], inner: Tensor) -> "There":
        assert type(inner) is not There
        made: There = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=CUDA
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"There({self.inner!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "There":
        if id(self) not in memo:
            memo[id(self)] = copied = There(self.inner.detach().clone().requires_grad_(self.inner.requires_grad))
            if getattr(self, "_is_param", False):
                copied._is_param = True
        return memo[id(self)]  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return performed(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return performed(func, args, kwargs or {})


class Elsewhere(TorchFunctionMode):
    """Within, there is a made-up GPU.

    Attributes:
        computed: The names of all operations that ran there.
    """

    computed: ClassVar[set[str]] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)  # torch does not look for types of tensors in a sparse one's
        if There in types or name == "sparse_coo_tensor" or destination(name, args, kwargs):
            return performed(func, args, kwargs)
        return func(*args, **kwargs)


def name_of(func: Callable[..., Any]) -> str:
    """The operation's name; of a property the property's."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name).split(".")[0]


def leaves_of(value: Any) -> list[Tensor]:
    """Every tensor in it."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [one for item in value.values() for one in leaves_of(item)]
    return [one for item in value for one in leaves_of(item)] if isinstance(value, tuple | list) else []


def each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each(item, change) for key, item in value.items()}
    if isinstance(value, torch.Size) or not isinstance(value, tuple | list):
        return value
    changed = [each(item, change) for item in value]
    is_named = type(value).__module__ == "torch.return_types"
    return type(value)(changed) if is_named or type(value) in (tuple, list) else value


def inside(one: Tensor) -> Tensor:
    """What a tensor from there holds; one of the processor as it is."""
    own: Tensor = one.inner if isinstance(one, There) else one
    return own


def is_there(device: Any) -> bool:
    """Whether a device, in whatever form, is the made-up one."""
    if isinstance(device, int) and not isinstance(device, bool):
        return True
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


def destination(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool | None:
    """Whether the result of a move or of a factory is there; None where nothing is said."""
    if name in ("cpu", "cuda"):
        return name == "cuda"
    if kwargs.get("device") is not None:
        return is_there(kwargs["device"])
    if name == "to" and (target := kwargs.get("other", args[1] if len(args) > 1 else None)) is not None:
        if isinstance(target, Tensor):
            return isinstance(target, There)
        return is_there(target) if isinstance(target, str | torch.device) else None
    return isinstance(args[1], There) if name == "type_as" else None


def check(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], func: Callable[..., Any]) -> None:
    """Nothing, where a GPU would do it.

    Raises:
        Mixed: It would not.
        TypeError: Numpy is given something from there.
    """
    if name in ("numpy", "__array__", "data_ptr", "untyped_storage"):
        raise TypeError(f"{name}: can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
    if name in INDEXED:
        indexed, rest = args[0], args[2:]
        if not isinstance(indexed, There):
            raise Mixed(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
        leaves = [indexed, *leaves_of(rest)]
    else:
        leaves = leaves_of((args, kwargs))
    here = [one for one in leaves if not isinstance(one, There)]
    if name not in MOVES and any(one.ndim > 0 or name in NOT_POINTWISE for one in here):
        raise Mixed(f"{name}: expected all tensors to be on the same device, but found two: cuda:0 and cpu")
    numbers = next((one for one in leaves if one.is_floating_point()), None)
    is_weighed = name == "bincount" and len(leaves) > 1
    if (name in OF_FLOATS and numbers is not None) or is_weighed:
        raise Mixed(f"{name}: has no deterministic kernel on a GPU")


def performed(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the operation gives, computed by the processor and there again where it should be."""
    name = name_of(func)
    with DisableTorchFunctionSubclass():
        of_there = any(isinstance(one, There) for one in leaves_of((args, kwargs)))
        if of_there and func in PROPERTIES:
            return PROPERTIES[func]
        if of_there and name == "_has_compatible_shallow_copy_type":
            return False  # a module that moves makes new parameters
        goes = destination(name, args, kwargs)
        if not of_there and not goes:
            return func(*args, **kwargs)
        if of_there:
            check(name, args, kwargs, func)
        if goes and kwargs.get("generator") is not None:
            raise Mixed(f"{name}: expected a generator of cuda, got one of cpu")
        Elsewhere.computed.add(name)
        standing = {id(one.inner): one for one in leaves_of((args, kwargs)) if isinstance(one, There)}
        own, options = each(args, inside), each(dict(kwargs), inside)
        if goes is not None:
            own, options = on_processor(name, own, options)
        found = own[0].clone() if name == "cuda" and not of_there else func(*own, **options)
        if name == "copy_":
            return args[0]
        if goes is False:  # what comes to the processor is a copy
            return each(found, lambda one: one.clone() if id(one) in standing else one)
        if not of_there and own and found is own[0]:  # so is what goes there
            found = found.clone()
        return each(found, lambda one: standing[id(one)] if id(one) in standing else There(one))


def on_processor(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with the processor as device."""
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name == "to" and len(args) > 1 and (isinstance(args[1], str | torch.device) or is_there(args[1])):
        args = (args[0], torch.device("cpu"), *args[2:])
    return args, kwargs


PROPERTIES: dict[Any, Any] = {
    Tensor.device.__get__: CUDA,
    Tensor.is_cuda.__get__: True,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]
    Tensor.get_device: 0,
}
"""What a tensor from there says of itself."""

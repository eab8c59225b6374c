"""Surgery: which layers can be split, and putting a disentangled one in a layer's place and taking it out again."""

from torch import nn

from methods.layer import DisentangledLayer, Linear, Merge
from methods.parts import Parts


def disentangle(root: nn.Module, path: str, parts: Parts, merge: Merge = "exact") -> DisentangledLayer:
    """The layer that now stands at that path of the network, in place of the one it holds.

    Raises:
        LookupError: There is no such module.
        ValueError: It is no linear layer, or the parts are of another kernel; the message names the path.
    """
    layer = DisentangledLayer(linear_at(root, path), parts, merge, f"module {path!r}")
    root.set_submodule(path, layer)
    return layer


def unwrap(root: nn.Module) -> list[str]:
    """Paths at which a disentangled layer stood and the very layer that it held stands again."""
    paths = [path for path, module in root.named_modules() if isinstance(module, DisentangledLayer)]
    for path in paths:
        layer = root.get_submodule(path)
        if isinstance(layer, DisentangledLayer):
            root.set_submodule(path, layer.plain)
    return paths


def linear_at(root: nn.Module, path: str) -> Linear:
    """The linear layer or 1x1 convolution at that path.

    Raises:
        LookupError: There is no such module.
        ValueError: It is something else; the message says what.
    """
    modules = dict(root.named_modules())
    usable = ", ".join(name for name, module in modules.items() if not problem_of(module))
    if path not in modules:
        raise LookupError(f"module: got {path!r}, which is not there; expected a path in it; choose one of {usable}")
    module = modules[path]
    problem = problem_of(module)
    if problem or not isinstance(module, nn.Linear | nn.Conv2d):
        raise ValueError(
            f"module: got {path!r}, which is {problem}; expected a linear layer or a 1x1 convolution; "
            f"choose one of {usable}"
        )
    return module


def problem_of(module: nn.Module) -> str:
    """Why a module cannot be a site; empty where it can."""
    if isinstance(module, nn.Linear):
        return ""
    if isinstance(module, nn.Conv2d):
        plain = module.kernel_size == (1, 1) and module.stride == (1, 1) and module.groups == 1
        plain = plain and module.padding in ((0, 0), "valid", "same")
        kernel, stride = "x".join(map(str, module.kernel_size)), "x".join(map(str, module.stride))
        return "" if plain else f"a {kernel} convolution with stride {stride} and {module.groups} group(s)"
    if isinstance(module, DisentangledLayer):
        return "disentangled already (unwrap it first)"
    return f"a {type(module).__name__}"

"""Lets a CUDA build of torchvision be imported beside a CPU build of torch; Python runs this file at start-up.

Package indexes hold torchvision with CUDA operators only. Its import declares shapes for `nms`, which a CPU torch does
not know, and fails; vLLM's vision-language classes import it. Declaring the operator first is enough: nothing here
calls it. The folder is put on PYTHONPATH by `server.py`, so that vLLM's child processes have it too.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_declared: list[object] = []


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the operators when torchvision is looked for, which is after torch can be imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _declared.append(library)
        return None


sys.meta_path.insert(0, _BeforeTorchvision())

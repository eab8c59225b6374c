"""The device that a process works on: its name checked, torch set up for it, and what it is in words for records.

What runs where. With `--device cuda` the backbone's forward pass, the codes and outputs that methods make of it, and
all that metrics add up stay on one GPU; several GPUs are several processes, each of which sees its own. Images are
decoded and resized on the processor, and samples, rankings of methods that decompose and files are the processor's too;
a method that decomposes decides for itself whether it uses a GPU (`methods.training`, `methods.elude`). The embedded
ViT is always trained on the processor: its weights must not depend on the device.

Which numbers differ. The same command on the same device gives the same numbers, with these exceptions: torch adds up
the product of a sparse and a dense matrix (the MS-Score) in no fixed order on a GPU, in float64, so that the last of
16 digits may change; and times are times. Two devices differ by rounding: other kernels add in other orders, as other
processors do too. So nothing in the cache is named by the device: what one found another takes up, and a record says
where its decomposition was made. TF32 and reduced sums of 16-bit products are off, as they would cost digits unasked.
Between precisions, differences are of the size of their rounding: the forward pass in bfloat16 keeps 8 bits of every
number, in float16 11 bits and nothing above 65,504. What is read there is widened to float32 before anything else is
done with it, and every sum over a split is taken in float64. MPS has no float64 and is not supported.
"""

import os
import re

import torch

from bench import UsageError

Where = torch.device


def checked(device: str) -> Where:
    """The device of that name.

    Raises:
        UsageError: It is no device of the bench, or torch does not see it.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(f'--device: got {device!r}; expected "cpu", "cuda" or "cuda:N"; choose one of them')
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(f"--device: got {device}; expected a GPU that torch sees; {why_none()}")
    where, n = torch.device(device), torch.cuda.device_count()
    if where.index is not None and where.index >= n:
        raise UsageError(f"--device: got {device}; expected one below cuda:{n}, of which torch sees so many; change it")
    return where


def why_none() -> str:
    """Why torch sees no GPU, and the next step."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} sees no GPU: it is built without CUDA; install one built with it"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"torch sees no GPU: CUDA_VISIBLE_DEVICES is {visible!r}; change it, or use --device cpu"
    return "torch sees no GPU: no driver, or no device; look at nvidia-smi, or use --device cpu"


def set_up(device: str) -> Where:
    """The device, with everything set that results follow from; errors as in `checked`."""
    where = checked(device)
    # One thread each: two threads were measured ten times slower than one on a busy machine.
    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it a GPU's products are not deterministic
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    if where.type == "cuda":
        torch.cuda.set_device(where.index or 0)
    return where


def described(device: str) -> str:
    """A GPU in words: name, versions, and how it is used; the name alone where this process does not see it."""
    if not torch.cuda.is_available():
        return f"{device.split(':')[0]}: not seen from here"
    facts = torch.cuda.get_device_properties(checked(device))
    versions = f"compute capability {facts.major}.{facts.minor}, CUDA {torch.version.cuda}"
    return f"cuda: {facts.name}, {versions}, cuDNN {torch.backends.cudnn.version()}, deterministic kernels, no TF32"

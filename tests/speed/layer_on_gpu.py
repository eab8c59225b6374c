"""The layer's cost inside ViT-B/14 at batch 256 and random weights, as JSON: `python tests/speed/layer_on_gpu.py`.

The protocol is the ELUDe paper's (B.4). The aims, on an H200: ratios of at most 1.03 without codes and 1.10 with all
of them, peak memory ratios of at most 1.05, and with codes no more than the codes on top. By count of multiplications,
all codes of 8 parts a unit are 22 % more at 224 pixels and 17 % at 518: below that only as far as one long product
runs faster than the network.
"""

import argparse
import json
import sys
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from bench.efficiency import measure_layer, random_parts


def main() -> None:
    """Print what `measure_layer` finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "float16"])
    parser.add_argument("--side", type=int, default=518, help="pixels; the network's own are 518")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--per-unit", type=int, default=8, help="parts of each unit")
    parser.add_argument("--path", default="blocks.10.mlp.fc2", help="the paper's layer 11")
    parser.add_argument("--warm-ups", type=int, default=100)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    given = parser.parse_args()
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch14_dinov2", pretrained=False, img_size=given.side)
    dtype = getattr(torch, given.dtype)
    network = network.eval().requires_grad_(False).to(given.device, dtype)
    images = torch.randn(given.batch, 3, given.side, given.side, device=given.device, dtype=dtype)
    layer = network.get_submodule(given.path)
    parts = random_parts(layer.out_features, layer.in_features, given.per_unit)
    found = measure_layer(
        network, given.path, parts, images, warm_ups=given.warm_ups, runs=given.runs, is_compiled=not given.eager
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Measures clustering and the disentangled layer on a GPU: `python tests/speed/gpu.py --out gpu.json`.

Writes one JSON file: device, versions, seed, and a section for each question.

- products: float16 products with float32 sums at three shapes, in TFLOP/s, and at the largest over many seconds with
  the data of the run (dense data draws more power, and clocks fall).
- errors: the largest error of a product and of a squared distance, against what the radius allows; whether two runs
  and two streams give the same bits.
- lists: filling lists from a tile that is there, from one in the cache, and after its products; on two streams.
- gather: pairs measured in float64, in rows read per second.
- agreement: the tree on this device against the processor's, and against itself.
- whole: `spanning_tree` at each n: seconds of each phase, TFLOP/s of the pass against the best product, components,
  checks, share of the second pass, survivors, memory; and a in seconds = a n^2.
- units: ELUDe, unit after unit as in a run, at the two largest n: seconds a unit, minutes for 768.
- layer: milliseconds a batch and peak memory of DINOv2 ViT-B/14 at random weights with the layer in it, against the
  network as it is (the paper's B.4, with fewer passes).
- energy: how many principal directions hold a share of the points' squares.
- cuml: cuML's HDBSCAN on the same points, where it is installed.

The aims, on an H200: 1.2 s a unit at n = 400,000; a batch at most 1.03 times the plain network's without codes and
1.10 times with all codes; peak memory at most 1.05 times without codes, and the codes on top with them. A section that
fails is its error message, and the others go on. `--quick` takes tiny sizes, for a processor too.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.activations import TensorSource
from bench.efficiency import Protocol
from bench.layer_cost import measure_layer, random_parts
from methods.clustering.gpu import Torch
from methods.clustering.lists import spanning_tree
from methods.clustering.neighbours import GPU_SIZES, Sizes, empty_lists
from methods.clustering.working import Working, highest, lowest, prepare
from methods.elude import ELUDe

SEED = 0
SHAPES = ((8192, 8192), (2048, 4096), (4096, 16384))


def main() -> None:
    """Parses the options, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 100_000, 200_000, 400_000])
    parser.add_argument("--dimensions", type=int, default=3072)
    parser.add_argument("--min-samples", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of sustained products")
    parser.add_argument("--kernels", choices=["triton", "torch"], default=None)
    parser.add_argument("--batch", type=int, default=256, help="images, for the layer")
    parser.add_argument("--side", type=int, default=518, help="pixels of an image, for the layer")
    parser.add_argument("--passes", type=int, default=30, help="timed passes of each kind, for the layer")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.dimensions, options.min_samples, options.seconds = [300, 600], 48, 20, 0.1
        options.batch, options.side, options.passes = 1, 28, 1
    options.kernels = options.kernels or ("triton" if options.device.startswith("cuda") else "torch")
    measure(options)


def measure(options: argparse.Namespace) -> None:
    """Every section in turn; the file is written after each."""
    found: dict[str, Any] = {"device": described(options.device), "seed": SEED, "options": jsonable(vars(options))}
    bench = Bench(options)
    for section in (products, errors, lists, gather, agreement, whole, units, layer, energy, cuml):
        start = time.perf_counter()
        try:
            found[section.__name__] = section(bench, found)
        except Exception as error:  # a broken section must not cost the others
            found[section.__name__] = {"error": f"{type(error).__name__}: {error}"}
        found[section.__name__]["seconds"] = time.perf_counter() - start
        options.out.write_text(json.dumps(jsonable(found), indent=1) + "\n", encoding="utf-8")
        print(section.__name__, f"{found[section.__name__]['seconds']:.1f} s", found[section.__name__].get("error", ""))


def jsonable(value: Any) -> Any:
    """The same with paths as text and numbers as Python's."""
    if isinstance(value, dict):
        return {str(key): jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(one) for one in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def described(device: str) -> dict[str, Any]:
    """What it ran on."""
    cuda = device.startswith("cuda")
    return {
        "name": torch.cuda.get_device_name(device) if cuda else f"cpu ({platform.processor() or platform.machine()})",
        "bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "numpy": np.__version__,
    }


class Bench:
    """The points of the run, their working copy, and a clock for the device."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = options.device
        self.cuda = options.device.startswith("cuda")
        self.shapes = SHAPES if not options.quick else ((64, 64), (32, 64), (32, 128))
        self.sizes = GPU_SIZES if not options.quick else replace(Sizes(), tile_rows=128, tile_columns=128)
        self.n = max(64, max(sum(shape) for shape in self.shapes)) if options.quick else 20_480
        self.machine = Torch(contributions(self.n, options.dimensions, self.device), options.kernels == "triton")
        self.working: Working = prepare(self.machine, "float16")

    def wait(self) -> None:
        """Until the device is done."""
        if self.cuda:
            torch.cuda.synchronize()

    def time(self, function: Callable[[], Any], repeats: int = 5) -> float:
        """Seconds of the fastest of some calls, after one that warms up."""
        function()
        best = float("inf")
        for _ in range(1 if self.options.quick else repeats):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            best = min(best, time.perf_counter() - start)
        return best


def contributions(n: int, d: int, device: str) -> Tensor:
    """Heavy-tailed contribution vectors of norm 1: 40 patterns of lognormal parts, and a third that follow none."""
    generator = torch.Generator(device).manual_seed(SEED)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    weight = normal(d) * torch.exp(0.5 * normal(d))
    patterns = torch.exp(1.5 * normal(40, d))
    points = torch.empty(n, d, device=device)
    for first in range(0, n, 8192):
        rows = min(8192, n - first)
        which = torch.randint(0, 40, (rows,), generator=generator, device=device)
        found = patterns[which] * torch.exp(0.7 * normal(rows, d))
        stray = torch.rand(rows, generator=generator, device=device) < 1 / 3
        found[stray] += 2 * torch.exp(1.5 * normal(int(stray.sum()), d))
        points[first : first + rows] = torch.nn.functional.normalize(found * weight, dim=1)
    return points


def products(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """TFLOP/s at three shapes, and over the seconds asked for."""
    h, d = bench.working.rows, bench.options.dimensions
    rates = {}
    for rows, columns in bench.shapes:
        left, right = h[:rows], h[-columns:]
        seconds = bench.time(lambda left=left, right=right: bench.machine.products(left, right))  # type: ignore[misc]
        rates[f"{rows}x{d}x{columns}"] = 2 * rows * columns * d / seconds / 1e12
    rows, columns = bench.shapes[0]
    series: list[float] = []
    start = time.perf_counter()
    while not series or time.perf_counter() - start < bench.options.seconds:
        begin, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() - begin < min(1.0, bench.options.seconds):
            for _repeat in range(1 if bench.options.quick else 50):
                bench.machine.products(h[:rows], h[-columns:])
                done += 1
            bench.wait()
        series.append(2 * rows * columns * d * done / (time.perf_counter() - begin) / 1e12)
    return {"tflops": rates, "sustained_tflops": series, "sustained_last": series[-1]}


def errors(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Errors of products and distances against their bounds, and whether bits repeat."""
    working, rows = bench.working, min(4096, bench.n // 2)
    some = working.rows[:rows]
    exact = some.double() @ some.double().T
    norms = exact.diagonal().sqrt()
    found = bench.machine.products(some, some).clone()
    error = ((found.double() - exact).abs() / (norms[:, None] * norms)).max()
    again = bench.machine.products(some, some).clone()
    same_streams = None
    if bench.cuda:
        streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        bench.wait()
        tiles = []
        for stream in streams:
            with torch.cuda.stream(stream):
                tiles.append(bench.machine.products(some, some))
        bench.wait()
        same_streams = all(torch.equal(found, tile) for tile in tiles)
    few = min(512, rows)
    i, j = torch.triu_indices(few, few, 1, device=some.device)
    a = working.approximate(slice(0, few), slice(0, few))[i, j]
    true, radius = working.distances(i, j), working.radius(i, j)
    width = (highest(a, *radius) - lowest(a, *radius)) / 2
    return {
        "largest_product_error": float(error),
        "gamma": working.facts["gamma"],
        "largest_distance_error": float((a - true).abs().max()) / working.scale**2,
        "largest_distance_error_of_radius": float(((a - true).abs() / width).max()),
        "median_radius": float(width.median()) / working.scale**2,
        "outside_radius": int(((true < lowest(a, *radius)) | (true > highest(a, *radius))).sum()),
        "two_runs_same_bits": torch.equal(found, again),
        "two_streams_same_bits": same_streams,
    }


def lists(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Seconds to fill lists from tiles, at a twentieth and at half a percent of the pairs near."""
    working, found = bench.working, {}
    for share in (0.005, 0.05):
        for rows, columns in bench.shapes[:2]:
            tile = bench.machine.products(working.rows[:rows], working.rows[-columns:]).clone()
            a = working.squares[:rows, None] + working.squares[-columns:] - 2 * tile
            store = empty_lists(working, min(2560, bench.n))
            store.thresholds.fill_(float(a[:: max(1, rows // 64)].flatten()[:100_000].quantile(share)))

            def fill(tile: Tensor = tile, store: Any = store, columns: int = columns) -> None:
                store.counts.zero_()
                bench.machine.append(tile, working.squares, store, 0, bench.n - columns)

            def both(rows: int = rows, columns: int = columns, fill: Any = fill) -> None:
                fill(bench.machine.products(working.rows[:rows], working.rows[-columns:]))

            alone = bench.time(fill)
            entry = {"alone": alone, "gigabytes_per_second": 2 * tile.numel() * 4 / alone / 1e9}
            entry["after_products"] = bench.time(both)
            if bench.cuda:
                side = torch.cuda.Stream()

                def overlapped(rows: int = rows, columns: int = columns, fill: Any = fill, side: Any = side) -> None:
                    with torch.cuda.stream(side):
                        fill()
                    bench.machine.products(working.rows[:rows], working.rows[-columns:])

                entry["beside_products"] = bench.time(overlapped)
            found[f"{rows}x{columns} {share}"] = entry
    return {"fill_seconds": found}


def gather(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Pairs of random rows measured in float64."""
    n_pairs = 1000 if bench.options.quick else 4_000_000
    generator = torch.Generator(bench.device).manual_seed(SEED)
    i, j = torch.randint(0, bench.n, (2, n_pairs), generator=generator, device=bench.device)
    i = i.sort().values
    seconds = bench.time(lambda: bench.machine.distances(i, j), 3)
    return {
        "pairs_per_second": n_pairs / seconds,
        "gigabytes_per_second": 8e-9 * n_pairs * bench.options.dimensions / seconds,
    }


def agreement(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Largest relative difference of tree weights and cores from the processor's, and whether bits repeat."""
    n, k = (200, 10) if bench.options.quick else (6000, 100)
    points = contributions(n, bench.options.dimensions, bench.device)
    host = spanning_tree(points.cpu(), k)
    found: dict[str, Any] = {}
    for kernels in dict.fromkeys([bench.options.kernels, "torch"]):
        trees = [spanning_tree(points, k, bench.device, "float16", kernels, bench.sizes) for _ in range(2)]
        weights = np.sort(trees[0].weights)
        found[kernels] = {
            "weights": float(np.abs(weights / np.sort(host.weights) - 1).max()),
            "cores": float(np.abs(trees[0].cores / host.cores - 1).max()),
            "same_bits": all(
                np.array_equal(getattr(trees[0], name), getattr(trees[1], name))
                for name in ("cores", "heads", "tails", "weights")
            ),
        }
    return found


def whole(bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
    """`spanning_tree` at each n, twice where that is quick: the second is not slowed by compilation."""
    runs, d, k = [], bench.options.dimensions, bench.options.min_samples
    best = max(found["products"].get("tflops", {"none": float("nan")}).values())
    for n in bench.options.sizes:
        try:
            points = contributions(n, d, bench.device)
            for _repeat in range(2 if n <= 100_000 else 1):
                if bench.cuda:
                    torch.cuda.reset_peak_memory_stats()
                start = time.perf_counter()
                tree = spanning_tree(points, k, bench.device, "float16", bench.options.kernels, bench.sizes)
                seconds = time.perf_counter() - start
            peak = torch.cuda.max_memory_allocated() if bench.cuda else None
        except (RuntimeError, ValueError, ArithmeticError) as error:
            runs.append({"n": n, "error": f"{type(error).__name__}: {error}"})
            continue
        rate = n * n * d / tree.facts["pass_seconds"] / 1e12
        run = {"n": n, "total_seconds": seconds, "pass_tflops": rate, "of_best_product": rate / best}
        runs.append({**run, "peak_bytes": peak, **tree.facts})
    fits = [run for run in runs if "error" not in run]
    square = sum(float(run["n"]) ** 4 for run in fits)
    a = sum(float(run["total_seconds"]) * float(run["n"]) ** 2 for run in fits) / square if fits else None
    return {"runs": runs, "seconds_per_n_squared": a}


def units(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """`ELUDe` at the two largest n, on twice as many tokens: the first unit compiles, the next three count."""
    found: dict[str, Any] = {}
    for n in bench.options.sizes[-2:]:
        inputs = contributions(2 * n, bench.options.dimensions, "cpu")
        weight = torch.randn(4, bench.options.dimensions, generator=torch.Generator().manual_seed(SEED))
        method = ELUDe(top_k=float(n), min_cluster_size=bench.options.min_samples)
        source = TensorSource(inputs, inputs @ weight.T, weight)
        method.decompose_units(source, range(1))
        start = time.perf_counter()
        method.decompose_units(source, range(1, 4))
        seconds = (time.perf_counter() - start) / 3
        found[str(n)] = {"unit_seconds": seconds, "minutes_for_768_units": 768 * seconds / 60}
    return found


def layer(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """The network as it is, with the layer, with all codes, and with the parts summed; 8 parts a unit."""
    options, dtype = bench.options, torch.bfloat16 if bench.cuda else torch.float32
    torch.manual_seed(SEED)
    network = timm.create_model("vit_base_patch14_dinov2", pretrained=False, img_size=options.side)
    network = network.eval().requires_grad_(False).to(options.device, dtype)
    images = torch.randn(options.batch, 3, options.side, options.side, device=options.device, dtype=dtype)
    path, passes = "blocks.10.mlp.fc2", options.passes  # the paper's layer 11
    site = network.get_submodule(path)
    parts = random_parts(site.out_features, site.in_features, 8)
    protocol = Protocol(warm_ups=passes // 3, runs=passes, is_compiled=not options.quick)
    return measure_layer(network, path, parts, images, protocol)


def energy(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Principal directions that hold half, nine tenths and 99 % of the squares, and the curve at powers of two."""
    x = bench.machine.points.double()
    values = torch.linalg.eigvalsh(x.T @ x).flip(0).clamp(min=0)
    share = values.cumsum(0) / values.sum()
    held = {str(part): int((share < part).sum()) + 1 for part in (0.5, 0.9, 0.99)}
    return {"directions": held, "curve": {str(2**p): float(share[2**p - 1]) for p in range(len(share).bit_length())}}


def cuml(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Seconds of cuML's HDBSCAN at up to 100,000 points; its min_samples ends at 1,023."""
    if not bench.cuda:
        return {"skipped": "needs a GPU"}
    try:
        from cuml.cluster import HDBSCAN
    except ImportError as error:
        return {"skipped": f"not installed: {error}"}
    seconds = {}
    for n in (n for n in bench.options.sizes if n <= 100_000):
        points = contributions(n, bench.options.dimensions, bench.device)
        k = min(bench.options.min_samples, 1023)
        start = time.perf_counter()
        HDBSCAN(min_cluster_size=k, min_samples=k, cluster_selection_method="leaf").fit(points)
        bench.wait()
        seconds[str(n)] = time.perf_counter() - start
    return {"fit_seconds": seconds}


if __name__ == "__main__":
    main()

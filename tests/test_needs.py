"""What a plan says that a run needs: disk, judge calls, arithmetic, what is missing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.changes import Changes
from bench.needs import IMAGENET, arithmetic, forward_of, images_of, needs_of, size_of
from bench.registry import Registry
from bench.runner import run
from bench.stages import StartWorkshop
from bench.suites import load_suite
from judges.costs import n_presentations

FOUR = Path(__file__).parent / "four.toml"


class Square:
    side = 8


class Net(nn.Module):
    """Patches of 4 pixels, a layer on each, one number an image: every product can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4, bias=False)
        self.layer = nn.Linear(6, 10, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(self.patches(images).flatten(2).movedim(1, 2)).sum((1, 2))  # type: ignore[no-any-return]


def test_a_forward_pass_is_counted_on_an_architecture_without_weights() -> None:
    with torch.device("meta"):
        net = Net()
    positions, flops = forward_of(net, net.layer, Square())
    assert positions == 4
    assert flops == 2 * 4 * (3 * 4 * 4 * 6 + 6 * 10)
    assert forward_of(net, net.layer, None) == (1, 0.0)


def test_the_disk_that_is_told_holds_what_a_run_keeps(tmp_path: Path) -> None:
    suite = load_suite(str(FOUR), Registry())
    cells = [cell for cell in suite.cells if cell.label == "backbone"]
    told = needs_of(suite, cells, Registry()).disk_bytes
    run(
        suite,
        tmp_path / "run",
        StartWorkshop((), tmp_path / "cache"),
        only=["method=backbone"],
        n_lanes=0,
        is_quiet=True,
    )
    kept = sum(path.stat().st_size for path in (tmp_path / "cache" / "activations").rglob("*.npy"))
    assert told <= kept < told + 4096  # heads of files


def test_a_slice_needs_a_share_of_it() -> None:
    suite, half = (load_suite(str(FOUR), Registry(), Changes(scale=scale)) for scale in (1.0, 0.5))
    whole, part = (needs_of(one, one.cells, Registry()) for one in (suite, half))
    assert part.disk_bytes == pytest.approx(whole.disk_bytes / 2)
    topk = [(one, [cell for cell in one.cells if cell.label == "topk_sae"]) for one in (suite, half)]
    whole, part = (needs_of(*one, Registry()) for one in topk)
    assert part.petaflop["decompositions"] == pytest.approx(whole.petaflop["decompositions"] / 2)
    assert images_of(suite.sites[0]) == ((600, 300), False)


def test_judge_calls_are_those_of_the_protocol() -> None:
    suite = load_suite("paper-table2", Registry())
    needs = needs_of(suite, suite.cells, Registry())
    assert needs.calls == 2 * 13_500 == 2 * n_presentations(10)
    assert len(needs.judges) == 3
    assert "81,000 calls, 27,000 to each of qwen3_vl_30b_a3b" in "\n".join(needs.lines())


def test_a_panel_judges_what_is_done_as_well_and_nothing_is_told_of_other_sites() -> None:
    suite = load_suite("paper-table2", Registry())
    at_one = [cell for cell in suite.cells if cell.site == suite.sites[0]]
    needs = needs_of(suite, at_one, Registry(), done={cell.id for cell in at_one})
    assert needs.calls == 13_500
    assert (needs.disk_bytes, needs.spool_bytes, needs.memory_bytes) == (0, 0, 0)
    assert len(needs_of(suite, at_one, Registry()).missing) < len(needs_of(suite, suite.cells, Registry()).missing)
    assert all(line.startswith(f"{suite.sites[0].label}: ") for line in needs.missing)


def test_data_that_is_not_there_is_taken_for_imagenet_and_told() -> None:
    suite = load_suite("paper-table2", Registry())
    needs = needs_of(suite, suite.cells, Registry())
    assert needs.is_assumed
    assert any("image_folder" in line or "root" in line for line in needs.missing)
    tokens = 2 * IMAGENET[0]
    assert needs.disk_bytes == 2 * 3 * tokens * ((3072 + 768) * 2 + 8)  # two backbones, three token seeds
    assert needs.spool_bytes == IMAGENET[1] * 257 * 768 * 4
    assert needs.as_json()["missing"] == needs.missing


def test_every_piece_of_arithmetic_counts_once() -> None:
    suite = load_suite("paper-table2", Registry())
    site = next(site for site in suite.sites if site.label == "dinov2_vitb14")
    size = size_of(site)
    assert size is not None
    assert (size.d_in, size.units, size.positions) == (3072, 768, 257)
    cells = [cell for cell in suite.cells if cell.site == site and cell.label == "topk_sae"]
    key = next(iter({cell.site.label for cell in cells}))
    assert key == site.label
    sizes = {next(iter(_keys(cells))): size}
    found = arithmetic(cells, sizes)
    one = 12.0 * 2 * IMAGENET[0] * 50 * 768 * 6144
    assert found["decompositions"] == pytest.approx((9 + 2) * one)  # variants; the one taken, again
    assert found["forward"] == pytest.approx((IMAGENET[0] + 3 * IMAGENET[1]) * size.flops)
    assert arithmetic([*cells, *cells], sizes)["decompositions"] == found["decompositions"]


def _keys(cells: list) -> set[str]:  # type: ignore[type-arg]
    from bench.cache import digest

    return {digest(replace(cell).site.identity) for cell in cells}

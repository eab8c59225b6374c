"""What one can look at in a run: units, parts, exemplars and judged pairs, from its folder and its cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from bench import UsageError, judge_commands
from bench.cli import app
from bench.exemplars import scores_of
from bench.explore import SIDE, Looking
from bench.folder import outcomes, read_plan, write_plan
from bench.galleries import CELL, PAIR_CELL
from bench.looked import LookedRun
from bench.pictured import grid_of, images_of
from bench.presented import heard_in
from bench.registry import Registry
from bench.runner import run
from bench.stages import StartWorkshop
from bench.suites import load_suite, suite_of
from judges.drawn import present
from judges.planted import EASIEST, NULLS, SIDES
from results.explored import Pictures
from results.report import Views

SUITE = """
description = "plumbing test: what there is to look at"
token_seeds = [42]
init_seeds = [42]

[[sites]]
label = "shapes"
dataset = { name = "shapes", n_train = 240, n_test = 60 }
backbone = { name = "embedded_vit", width = 16, depth = 1, heads = 2, epochs = 1 }
module = "blocks.0.mlp.fc2"

[[methods]]
name = "backbone"

[[methods]]
name = "random_partition"

[[methods]]
name = "topk_sae"
k = 4
epochs = 1

[[methods]]
name = "elude"
min_cluster_size = 3
"""
PANEL = """
[settings]
unit_pairs = 3
cell_px = 16
planted = 2

[[judges]]
judge = "proxy"
name = "pixels"

[[judges]]
judge = "nasty"
name = "nasty"
"""
NASTY = '''
import json
from dataclasses import dataclass
from judges.protocol import Reply

TEXT = "<script>alert(1)</script><img src=x onerror=alert(2)> " + "x" * 100_000

@dataclass(frozen=True)
class Nasty:
    """Says what a page must not run."""

    name: str = "nasty"
    kind = "proxy"
    n_at_once: int = 1

    async def prepare(self):
        return {"name": self.name, "kind": "proxy"}

    async def compare(self, grid_a, grid_b):
        return (Reply(json.dumps({"reasoning_a": TEXT, "reasoning_b": "<b>no</b>", "answer": "B"})),)

JUDGES = {"nasty": Nasty}
'''
PLENTY = 500_000_000


class Bench:
    """A judged run with its cache."""

    def __init__(self, root: Path) -> None:
        self.folder, self.cache, self.suite = root / "run", root / "cache", root / "looks.toml"
        self.plugin, panel = root / "nasty.py", root / "mine.toml"
        for path, said in ((self.suite, SUITE), (self.plugin, NASTY), (panel, PANEL)):
            path.write_text(said, encoding="utf-8")
        loaded, start = load_suite(str(self.suite), Registry()), StartWorkshop((), self.cache)
        run(loaded, self.folder, start, n_lanes=0, is_quiet=True)
        judging = StartWorkshop((self.plugin,), self.cache)
        judge_commands.judged(loaded, self.folder, str(panel), judging, [self.plugin], is_quiet=True)

    def explored(self, max_bytes: int = PLENTY, with_images: bool | None = None, **changed: Any) -> "Everything":
        looking = Looking.at(self.folder, **{"cache": self.cache, **changed})
        return looking.within(max_bytes, with_images)

    def looked(self) -> LookedRun:
        return LookedRun.at(self.folder, (), self.cache)

    def gallery(self, *words: str) -> Any:
        common = ("--run", str(self.folder), "--cache", str(self.cache))
        return CliRunner().invoke(app, ["gallery", *words, *common])


@pytest.fixture(name="bench", scope="module")
def a_judged_run(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("looks"))


@pytest.fixture(name="everything", scope="module")
def all_there_is(bench: Bench) -> "Everything":
    return bench.explored()


Everything = tuple[Views, list[str]]


def test_every_unit_is_there_with_pictures_of_all_its_exemplars(everything: Everything) -> None:
    views, left_out = everything
    (pictures,), found, pairs = views.pictures, views.explored, views.judged
    assert {one.label for one in found} == {"backbone", "random_partition", "topk_sae", "elude"}
    assert not left_out
    used = set()
    for one in found:
        assert len(one.units) == one.n_units
        for unit in one.units:
            atoms = [*unit.parts, *([unit.whole] if unit.whole else [])]
            used |= {image for atom in atoms for image in atom.images}
            assert all(len(atom.images) == len(atom.positions) == len(atom.codes) for atom in atoms)
            assert all(pictures.place_of(position) is not None for atom in atoms for position in atom.positions)
    used |= {image for pair in pairs for side in (pair.first, pair.second) for image in side.images}
    assert used == set(pictures.files) == set(pictures.captions)
    assert pictures.grid == (4, 4)
    assert pictures.is_embedded
    assert pictures.licence == "none needed: drawn by this program"


def test_of_a_method_that_splits_units_each_part_is_of_one_and_inputs_are_owned_once(
    bench: Bench, everything: Everything
) -> None:
    ((site,), _), found = bench.looked().sites(), {one.label: one for one in everything[0].explored}
    for label in ("elude", "random_partition"):
        looked, one = site.cells[label], found[label]
        assert sorted(part.index for unit in one.units for part in unit.parts) == list(range(one.n_atoms))
        weights = torch.zeros_like(site.site.weight.double())
        assert looked.parts is not None
        rows = looked.parts.weights(site.site.weight, None)[0]
        for unit in one.units:
            assert unit.whole is not None
            assert unit.whole.index == unit.index
            for part in unit.parts:
                weights[unit.index] += rows[part.index].double()
                assert part.n_inputs == int((rows[part.index] != 0).sum())
                sizes = [abs(weight) for _, weight in part.inputs]
                assert sizes == sorted(sizes, reverse=True)
                assert len(sizes) == min(16, part.n_inputs)
                for dimension, weight in part.inputs:
                    assert weight == pytest.approx(float(rows[part.index, dimension]), rel=1e-5)
        torch.testing.assert_close(weights, site.site.weight.double(), rtol=1e-5, atol=1e-7)
    assert any(part.n_members for unit in found["elude"].units for part in unit.parts)
    assert all(part.n_members is None for unit in found["topk_sae"].units for part in unit.parts)


def test_exemplars_are_those_of_the_codes_themselves(bench: Bench, everything: Everything) -> None:
    """Against the slow way: all codes at once, the largest of each image, images sorted by it."""
    ((site,), _), (one,) = bench.looked().sites(), [one for one in everything[0].explored if one.label == "backbone"]
    outputs = site.site.read(site.dataset.test.images(slice(0, len(site.dataset.test)))).outputs
    largest, positions = outputs.max(dim=1)
    for unit in one.units:
        assert unit.whole is not None
        best = largest[:, unit.index].sort(descending=True, stable=True).indices[:16].tolist()
        assert list(unit.whole.images) == best
        assert list(unit.whole.positions) == positions[best, unit.index].tolist()
        torch.testing.assert_close(torch.tensor(unit.whole.codes), largest[best, unit.index], rtol=1e-4, atol=1e-6)


def test_scores_of_atoms_average_to_the_record(bench: Bench, everything: Everything) -> None:
    """What is kept of each atom is what the recorded mean was made of."""
    records = {
        (record.label, record.metric): record.value for group in outcomes(bench.folder).values() for record in group
    }
    for one in everything[0].explored:
        parts = [part for unit in one.units for part in unit.parts]
        atoms = parts or [unit.whole for unit in one.units if unit.whole]
        for name in ("ms_score", "ms_score_permuted", "density"):
            values = [atom.scores[name] for atom in atoms]
            scored = [value for value in values if value is not None]
            assert sum(scored) / len(scored) == pytest.approx(records[one.label, name], rel=1e-4)


@pytest.mark.parametrize("max_bytes", [50_000, 90_000])
def test_a_budget_is_kept_by_a_draw_that_is_the_same_again_and_fair(bench: Bench, max_bytes: int) -> None:
    found = bench.explored(max_bytes)
    views, left_out = found
    assert 0.8 * max_bytes < len(views.json()) <= max_bytes
    assert found == bench.explored(max_bytes)
    counts = [len(one.units) for one in views.explored]
    assert min(counts) >= 1
    assert all(abs(a - b) <= 1 for a in counts for b in counts if a < 16 and b < 16)
    short = [one for one in views.explored if len(one.units) < one.n_units]
    assert short
    for one in short:
        assert one.left_out.startswith(f"{len(one.units)} of {one.n_units}")
    n, n_all = sum(counts), sum(one.n_units for one in views.explored)
    assert any(line.startswith(f"{n_all - n} of {n_all} units;") for line in left_out)
    by_label = {one.label: {unit.index for unit in one.units} for one in views.explored}
    assert len(by_label["elude"] & by_label["random_partition"]) >= min(map(len, by_label.values())) - 1


def test_nothing_fits_into_nothing(bench: Bench) -> None:
    assert bench.explored(10) == (
        Views(),
        ["units and judged pairs: 0.00 MB are left for them; a larger --max-mb shows some"],
    )


def test_images_that_are_not_shown_leave_their_place_to_others(bench: Bench) -> None:
    with_them, _ = bench.explored(60_000)
    without, left_out = bench.explored(60_000, with_images=False)
    assert not any(one.files or one.captions for one in without.pictures)
    assert any(line.startswith("images of shapes: --without-images;") for line in left_out)
    units = [sum(len(one.units) for one in views.explored) for views in (with_them, without)]
    assert units[0] < units[1]


def test_a_reply_is_text_whatever_is_in_it(everything: Everything) -> None:
    replies = [reply for pair in everything[0].judged for reply in pair.replies if reply.judge == "nasty"]
    assert replies
    for reply in replies:
        assert reply.choice == "B"
        assert reply.reasoning_a.startswith("<script>alert(1)</script><img src=x onerror=alert(2)> xxx")
        assert len(reply.reasoning_a) > 100_000
        assert json.loads(reply.text)["reasoning_b"] == reply.reasoning_b == "<b>no</b>"


def test_pairs_come_with_both_orders_and_the_consensus_of_their_replies(everything: Everything) -> None:
    pairs = everything[0].judged
    for pair in pairs:
        said = [reply.choice for reply in pair.replies]
        assert pair.consensus == ("B" if said == ["B", "B"] else None)
    shown = {(pair.first, pair.second) for pair in pairs}
    real = [pair for pair in pairs if pair.first.atom is not None]
    assert len(real) == 36  # 6 pairs of methods, 3 pairs of atoms each, 2 orders
    assert all((pair.second, pair.first) in shown for pair in real)
    assert {pair.kind for pair in pairs} == {"proxy_panel"}


def test_of_planted_pairs_it_is_told_which_side_is_right(bench: Bench, everything: Everything) -> None:
    heard = heard_in(bench.folder)[0][0]
    known: dict[str, Any] = {
        "methods": ("", ""),
        "units": (-1, -1),
        "grids": ("g", "h"),
        "site": "shapes",
        "token_seed": -1,
    }
    better, other = SIDES[EASIEST]
    first, second = (heard.judged(one) for one in present(**known, rung=EASIEST, expected="A"))
    assert (first.first.label, first.second.label, first.right, first.rung) == (better, other, "A", EASIEST)
    assert (second.first.label, second.second.label, second.right) == (other, better, "B")
    drawn = [pair for pair in everything[0].judged if pair.first.atom is None]
    assert {pair.rung for pair in drawn} == set(NULLS)  # too few images for the others
    assert all({pair.first.label, pair.second.label} == {*SIDES[pair.rung]} for pair in drawn)
    assert all(pair.right is None for pair in everything[0].judged)


def test_what_a_cache_lost_is_told(bench: Bench, tmp_path: Path) -> None:
    for stage, words in (
        ("scores", "the cache holds no scores of its atoms"),
        ("exemplars", "the cache no longer holds its exemplars"),
        ("decompositions", "the cache no longer holds its decomposition"),
        ("backbones", "the cache no longer holds its backbone"),
    ):
        cache = tmp_path / stage
        shutil.copytree(bench.cache, cache, ignore=shutil.ignore_patterns(stage))
        before = sorted(cache.rglob("*"))
        left_out = bench.explored(cache=cache)[1]
        assert any(words in line for line in left_out), left_out
        assert sorted(cache.rglob("*")) == before


def test_a_run_keeps_its_suite(bench: Bench, tmp_path: Path) -> None:
    """The file that it was read from may be gone; a run of a suite that nobody kept says what to do."""
    plan = read_plan(bench.folder)
    assert plan["suite_text"] == SUITE
    assert suite_of(plan, Registry()).cells == load_suite(str(bench.suite), Registry()).cells
    shutil.copytree(bench.folder, tmp_path / "run")
    write_plan(tmp_path / "run", {key: value for key, value in plan.items() if key not in ("schema", "suite_text")})
    (line,) = Looking.at(tmp_path / "run", cache=bench.cache).left_out
    assert line.startswith(
        "units, images and judged pairs: suite: got a run of 'looks', which is not shipped and not kept in its "
    )


def test_places_are_where_tokens_are() -> None:
    """A ViT of 2 x 2 patches with CLS and a register, one without, maps both ways round, a pooled layer."""
    assert grid_of((1, 6, 8), False, ("cls", "register")) == ((2, 2), 1)
    assert grid_of((1, 4, 8), False, ()) == ((2, 2), 0)
    assert grid_of((1, 8, 3, 5), True, ()) == ((3, 5), 0)
    assert grid_of((1, 3, 5, 8), False, ()) == ((3, 5), 0)
    assert grid_of((1, 8), False, ()) == (None, 0)
    assert grid_of((1, 7, 8), False, ("cls",))[0] is None
    with_cls = Pictures("site", {}, grid=(2, 2), n_prefix=1)
    assert [with_cls.place_of(position) for position in range(6)] == [None, (0, 0), (0, 1), (1, 0), (1, 1), None]
    assert Pictures("site", {}, grid=(3, 5)).place_of(7) == (1, 2)
    assert Pictures("site", {}).place_of(0) is None


def test_a_gallery_of_a_unit_holds_its_images(bench: Bench, everything: Everything, tmp_path: Path) -> None:
    (one,) = [one for one in everything[0].explored if one.label == "elude"]
    unit = max(one.units, key=lambda unit: len(unit.parts))
    assert unit.whole is not None
    out = tmp_path / "unit.png"
    done = bench.gallery(f"shapes/elude/{unit.index}", "--out", str(out))
    assert done.exit_code == 0, done.output
    ((site,), _) = bench.looked().sites()
    with Image.open(out) as picture:
        drawn, width = picture.tobytes(), picture.width
    for image in images_of(site, [*unit.whole.images, *(i for part in unit.parts for i in part.images[:4])], CELL):
        row = image.resize((CELL, CELL), Image.Resampling.BICUBIC).crop((0, CELL // 2, CELL, CELL // 2 + 1)).tobytes()
        assert row in drawn
    assert width > 8 * CELL


@pytest.mark.parametrize("words", [("best", "--n", "2"), ("random", "--n", "2", "--mark"), ("pair",)])
def test_galleries_that_are_chosen_are_the_same_again(bench: Bench, tmp_path: Path, words: tuple[str, ...]) -> None:
    for form in ("png", "pdf"):
        for name in ("a", "b"):
            done = bench.gallery(*words, "--out", str(tmp_path / f"{name}.{form}"))
            assert done.exit_code == 0, done.output
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()


def test_a_judged_pair_is_found_by_its_id(bench: Bench, everything: Everything, tmp_path: Path) -> None:
    pair = everything[0].judged[0]
    out = tmp_path / "pair.png"
    done = bench.gallery("pair", pair.id, "--out", str(out))
    assert done.exit_code == 0, done.output
    with Image.open(out) as picture:
        assert picture.width > 6 * PAIR_CELL


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shapes/elud/0",), "LABEL: got 'elud'; did you mean 'elude'?"),
        (("shape/elude/0",), "SITE: got 'shape'; did you mean 'shapes'?"),
        (("shapes/elude/999",), "UNIT: got '999' at shapes/elude; expected a unit from 0 to 15"),
        (("elude",), "WHAT: got 'elude'; expected SITE/LABEL/UNIT, or one of pair, best, random"),
        (("best", "--label", "elud"), "--label: got 'elud'; did you mean 'elude'?"),
        (("pair", "zz"), "ID: got 'zz'; expected a pair that was judged"),
        (("best", "--out", "picture.gif"), "--out: got picture.gif; expected a name that ends in .png or .pdf"),
    ],
)
def test_a_wrong_name_suggests_the_nearest(bench: Bench, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as error:
        raise bench.gallery(*words).exception
    assert said in str(error.value)


def test_scores_are_kept_for_every_metric_that_has_some(bench: Bench) -> None:
    looked = bench.looked()
    cell = next(cell for cell in looked.suite.cells if cell.label == "topk_sae")
    assert set(scores_of(looked.workshop, cell)) == {"ms_score", "ms_score_permuted", "density"}
    assert read_plan(bench.folder)["suite"] == "looks"
    assert SIDE >= 32
    assert len(heard_in(bench.folder)[0]) == 1

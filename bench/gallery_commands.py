"""The command `gallery`: a unit with its parts, a judged pair, or units that were chosen or drawn, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer

from bench import UsageError
from bench.figure_commands import written
from bench.registry import unknown
from bench.terminal import NO_PLUGINS, CacheDir, Plugins, Quiet, RunDir, resolved, waiting

if TYPE_CHECKING:
    from PIL import Image

    from bench.looked import Looked, LookedRun, LookedSite
    from results.explored import Unit

FORMS = ("png", "pdf")
SCORE = "ms_score"
MARKED = "The frame in an image is the token that drives the atom most there."
PARENT = "Yellow, left: the images that drive the unit most. Pink, right: those of each part, by the part's own code."


def gallery(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="SITE/LABEL/UNIT, or: pair, best, random.")],
    run_dir: RunDir,
    pair: Annotated[str, typer.Argument(metavar="ID", help="Of a judged pair; one is drawn if not given.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="A .png or .pdf file; in the run's folder if none.")] = None,
    mark: Annotated[bool, typer.Option("--mark", help="Frame the token that drives an atom in its image.")] = False,
    n: Annotated[int, typer.Option("--n", min=1, max=50, help="How many units `best` and `random` show.")] = 8,
    label: Annotated[str, typer.Option("--label", help="The method that `best` and `random` show.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn at random.")] = 0,
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
    quiet: Quiet = False,
) -> None:
    """Draw a unit and its parts with the images that drive them, or a judged pair with what was said of it."""
    name = f"gallery-{'-'.join(one for one in (what.replace('/', '-'), pair) if one)}.png"
    target = out or run_dir / name
    form = target.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise UsageError(f"--out: got {target.name}; expected a name that ends in .png or .pdf; change it")
    with waiting("looking into the run"):
        from bench.galleries import file_of, stacked
        from bench.looked import LookedRun

        run = LookedRun.at(run_dir, resolved(plugin), cache)
        if what == "pair":
            pages = [pair_page(run, pair, seed)]
        elif what in ("best", "random"):
            pages = chosen_pages(run, what, n, label, seed, mark)
        else:
            pages = [unit_page(run, what, mark)]
        written(target, file_of(stacked(pages, 0), "pdf" if form == "pdf" else "png"))
    if not quiet:
        print(f"wrote {target}")


def unit_page(run: "LookedRun", name: str, mark: bool) -> "Image.Image":
    """The page of the unit of that name."""
    site, looked, index = found_unit(run, name)
    return drawn(site, looked, index, mark, [])


def found_unit(run: "LookedRun", name: str) -> tuple["LookedSite", "Looked", int]:
    """The site, the method and the unit of a name SITE/LABEL/UNIT."""
    parts = name.rsplit("/", 2)
    if len(parts) != 3:
        raise UsageError(f"WHAT: got {name!r}; expected SITE/LABEL/UNIT, or one of pair, best, random; change it")
    sites, lost = looked_sites(run)
    by_label = {one.spec.label: one for one in sites}
    site_label, label, number = parts
    how = f"eludebench status --run {run.folder}"
    if site_label not in by_label:
        raise UsageError(unknown("SITE", site_label, by_label, how) + told(lost))
    site = by_label[site_label]
    if label not in site.cells:
        raise UsageError(unknown("LABEL", label, site.cells, how) + told(site.left_out))
    looked = site.cells[label]
    known = looked.atoms_of_unit
    if not number.isdecimal() or int(number) not in known:
        span = f"a unit from {min(known)} to {max(known)}" if known else "a unit, of which there is none"
        gaps = f" ({len(known)} of them have parts)" if known and len(known) <= max(known) else ""
        raise UsageError(f"UNIT: got {number!r} at {site_label}/{label}; expected {span}{gaps}; give another")
    return site, looked, int(number)


def looked_sites(run: "LookedRun") -> "tuple[list[LookedSite], list[str]]":
    """The sites of a run, and what is lost of others.

    Raises:
        UsageError: The cache holds none of them.
    """
    sites, lost = run.sites()
    if not sites:
        raise UsageError(f"--cache: it holds no site of {run.folder}{told(lost)}; expected the run's own; name it")
    return sites, lost


def told(lost: Sequence[str]) -> str:
    """What is not there, behind a message about what was not found."""
    return f" (not there: {'; '.join(lost)})" if lost else ""


def drawn(site: "LookedSite", looked: "Looked", index: int, mark: bool, remarks: list[str]) -> "Image.Image":
    """The page of one unit."""
    from bench.explore import images_in
    from bench.galleries import CELL, Seen, unit_gallery
    from bench.pictured import bare, images_of

    unit, pictures = looked.unit(index, site.whole), bare(site)
    rows = sorted(set(images_in(unit)))
    seen = Seen(dict(zip(rows, images_of(site, rows, CELL), strict=True)), pictures, mark)
    cell = looked.cell
    kind = "unit" if looked.splits or looked.is_whole else "atom"
    said = [PARENT] if looked.splits and unit.whole else []
    if looked.splits and unit.whole is None:
        said = ["The unit itself is not shown: the run has no finished cell of the method `backbone` here."]
    said += [mark_remark(pictures.grid is not None)] if mark else []
    where = f"{site.spec.backbone.entry.name}, {site.spec.module}; images: {site.dataset.name} ({pictures.licence})"
    return unit_gallery(
        unit, seen, title=f"{site.spec.label}, {cell.label}: {kind} {index}", remarks=[*remarks, *said, where]
    )


def mark_remark(has_places: bool) -> str:
    """What frames in images mean, or why there are none."""
    return MARKED if has_places else "No token is framed: nobody knows where in the image this site's tokens are."


def chosen_pages(run: "LookedRun", what: str, n: int, label: str, seed: int, mark: bool) -> "list[Image.Image]":
    """The pages of the units that were chosen for what came of them, or drawn."""
    sites, lost = looked_sites(run)
    splitting = [(site, one) for site in sites for one in site.cells.values() if one.splits]
    labels = {one.cell.label for _, one in splitting}
    if label and label not in labels:
        raise UsageError(unknown("--label", label, labels, f"eludebench status --run {run.folder}") + told(lost))
    own = [
        (site, one) for site, one in splitting if one.cell.label == label or (not label and not one.cell.is_reference)
    ]
    every = [(site, one, unit) for site, one in own for unit, atoms in one.atoms_of_unit.items() if len(atoms) > 1]
    if not every:
        raise UsageError(
            f"WHAT: got {what!r}; expected a run with units in several parts, and there are none{told(lost)}"
        )
    Random(seed).shuffle(every)
    if what == "random":
        how = f"Drawn at random (seed {seed}) among {len(every)} units that are in several parts."
        return [drawn(site, one, unit, mark, [how]) for site, one, unit in every[:n]]
    return best_pages(every, n, mark)


def best_pages(every: "list[tuple[LookedSite, Looked, int]]", n: int, mark: bool) -> "list[Image.Image]":
    """Of the tenth of the units with the most parts, those whose parts gain most in MS-Score over them."""

    def n_parts(one: "tuple[LookedSite, Looked, int]") -> int:
        return len(one[1].atoms_of_unit[one[2]])

    counts = sorted(map(n_parts, every), reverse=True)
    least = counts[min(len(counts), max(n, -(-len(counts) // 10))) - 1]
    many = [one for one in every if n_parts(one) >= least]
    gains = [(gain_of(looked.unit(unit, site.whole)), (site, looked, unit)) for site, looked, unit in many]
    known = sorted(((gain, one) for gain, one in gains if gain is not None), key=lambda pair: -pair[0])
    if not known:
        raise UsageError("WHAT: got 'best'; expected MS-Scores of units and parts, and the cache holds none; run again")
    how = (
        f"Not a fair sample: of {len(every)} units in several parts, the {len(known)} with {least} parts or more "
        "and an MS-Score were looked at, and those with the largest gain chosen (mean of the parts less the unit's): "
    )
    return [drawn(*one, mark, [f"{how}{gain:+.1f} points."]) for gain, one in known[:n]]


def gain_of(unit: "Unit") -> float | None:
    """The mean MS-Score of a unit's parts less its own, in points; None where one of them has none."""
    own = unit.whole.scores.get(SCORE) if unit.whole else None
    parts = [part.scores.get(SCORE) for part in unit.parts]
    scored = [one for one in parts if one is not None]
    return None if own is None or len(scored) < len(parts) else sum(scored) / len(scored) - own


def pair_page(run: "LookedRun", identity: str, seed: int) -> "Image.Image":
    """The page of a judged pair."""
    from bench.galleries import PAIR_CELL, Seen, pair_gallery
    from bench.pictured import bare, images_of
    from bench.presented import heard_in, pair_of

    heard, lost = heard_in(run.folder)
    every = [(one, each) for one in heard for both in one.comparisons for each in both if not each.rung]
    if not every:
        raise UsageError(f"WHAT: got 'pair' for a run that nobody judged; `eludebench judge run` first{told(lost)}")
    found = pair_of(heard, identity) if identity else Random(seed).choice(every)
    if found is None:
        known = {each.id for _, each in every}
        near = [one for one in sorted(known) if one.startswith(identity[:4])][:5] or sorted(known)[:5]
        raise UsageError(
            f"ID: got {identity!r}; expected a pair that was judged, {', '.join(near)} say; or leave it out"
        )
    one, presentation = found
    judged = one.judged(presentation)
    sites, lost = run.sites()
    site = next((each for each in sites if each.spec.label == judged.site), None)
    if site is None:
        raise UsageError(f"ID: got {identity!r}, whose images are not there{told(lost)}; run the suite again")
    rows = sorted({*judged.first.images, *judged.second.images})
    seen = Seen(dict(zip(rows, images_of(site, rows, PAIR_CELL), strict=True)), bare(site))
    drawn_by = [] if identity else [f"Drawn at random (seed {seed}) among {len(every)} presentations."]
    return pair_gallery(judged, seen, remarks=[*drawn_by, f"Images: {site.dataset.name} ({site.dataset.licence})"])

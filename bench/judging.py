"""Judging a run: the exemplars of its finished cells as grids, shown pair by pair to a panel, and what came of it.

Everything is in the folder of the run, `judging/PANEL/SITE`: the manifest, written before anybody is asked; the
pictures; every raw reply; the report. The values of each method are records beside the others. The same command again
asks what has not been answered; a method that joins adds its own pairs.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import UsageError
from bench.cache import digest
from bench.cells import Cell, SiteSpec, Suite
from bench.exemplars import N_SHOWN, Shown
from bench.folder import check_folder, outcomes, read_plan
from bench.geometry import Seen
from bench.judged import FOLDER, PICTURES, REPLIES, Context, beside_others
from bench.lanes import Failure
from bench.measuring import exemplars_of
from bench.panels import Panel
from bench.runner import plan_of
from bench.stages import Workshop
from judges.asking import Asked, ask_panel, preflight
from judges.drawn import Drawn, merged
from judges.grids import Grids, Pixels, grid_digest
from judges.manifest import Manifest
from judges.pairing import Contestant, tournament
from judges.planted import planted
from judges.protocol import Judge, JudgeError, Settings
from judges.replies import read_replies
from results.records import COMPLETE


@dataclass(frozen=True)
class Contest:
    """The methods of one site that are compared.

    Attributes:
        site: Where.
        cells: The cells of each label, one for every token seed, at the first init seed.
        left_out: Why other labels are not in it.
    """

    site: SiteSpec
    cells: Mapping[str, tuple[Cell, ...]]
    left_out: Mapping[str, str]


def contests(suite: Suite, folder: Path) -> list[Contest]:
    """What of a run can be judged, site by site: labels that are complete under every token seed.

    What the run's last command did not ask for is none of it, complete as it may be.

    Raises:
        UsageError: At no site are there two, or the run is another suite's.
    """
    check_folder(folder, plan_of(suite))
    there = {cell["id"] for cell in read_plan(folder, "--out")["cells"]}
    state = {key: str(group[-1].text) for key, group in outcomes(folder).items() if key in there}
    found = [contest_at(suite, site, state) for site in suite.sites]
    if not any(len(one.cells) > 1 for one in found):
        raise UsageError(
            f"--out: {folder} has fewer than two methods of suite {suite.name!r} that are complete at one site; "
            f"expected some to compare; `eludebench run {suite.name} --out {folder}` first"
        )
    return [one for one in found if len(one.cells) > 1]


def contest_at(suite: Suite, site: SiteSpec, state: Mapping[str, str]) -> Contest:
    """The labels of one site, with those that cannot be compared left out."""
    cells: dict[str, tuple[Cell, ...]] = {}
    left_out: dict[str, str] = {}
    for label in suite.labels:
        own = [one for one in suite.cells if one.site == site and one.label == label]
        own = [one for one in own if one.init_seed == suite.init_seeds[0]]
        missing = [
            f"token seed {one.token_seed}: {state.get(one.id, 'to do')}" for one in own if not is_done(one, state)
        ]
        twin = next((name for name, other in cells.items() if own and method_id(other[0]) == method_id(own[0])), None)
        if missing:
            left_out[label] = "; ".join(missing)
        elif twin is not None:
            left_out[label] = f"the same method with the same options as {twin}"
        else:
            cells[label] = tuple(own)
    return Contest(site, cells, left_out)


def is_done(cell: Cell, state: Mapping[str, str]) -> bool:
    """Whether a cell is complete."""
    return state.get(cell.id) == COMPLETE


def method_id(cell: Cell) -> str:
    """What a contestant is known by: the method with its options, whatever the seeds and the label."""
    leader = cell.leader.method.identity if cell.leader else None
    return digest({"method": cell.method.identity, "leader": leader})[:16]


def drawn_for(workshop: Workshop, contest: Contest, settings: Settings) -> tuple[Contest, Drawn]:
    """All presentations of a site, planted ones among them, and the contest without methods that cannot be shown.

    A method whose exemplars cannot be found is left out under every token seed.
    """
    every = [cell for cells in contest.cells.values() for cell in cells]
    shown = exemplars_of(workshop, every)
    left_out = dict(contest.left_out)
    for label, cells in contest.cells.items():
        bad = [one for cell in cells if isinstance(one := shown[cell.id], Failure)]
        if bad:
            left_out[label] = bad[0].reason
        elif any(n_images(shown[cell.id]) < N_SHOWN for cell in cells):
            left_out[label] = f"the evaluation split has fewer than the {N_SHOWN} images of a grid"
    contest = Contest(
        contest.site, {label: cells for label, cells in contest.cells.items() if label not in left_out}, left_out
    )
    if len(contest.cells) < 2:
        why = "; ".join(f"{label}: {reason}" for label, reason in left_out.items())
        raise UsageError(f"{contest.site.label}: fewer than two methods can be compared ({why}); mend them")
    dataset = workshop.dataset(contest.site)
    identify = partial(grid_digest, dataset.fingerprint, cell_px=settings.cell_px)
    stream: dict[str, str | int] = {
        "backbone": workshop.backbone(contest.site).fingerprint,
        "module": contest.site.module,
        "dataset": dataset.fingerprint,
    }
    parts = []
    for seed in dict.fromkeys(cell.token_seed for cell in every):
        pool = [
            contestant(cell, shown[cell.id])
            for cells in contest.cells.values()
            for cell in cells
            if cell.token_seed == seed
        ]
        parts.append(
            tournament(
                pool, site=contest.site.label, stream=stream, token_seed=seed, settings=settings, digest=identify
            )
        )
    labels = None if dataset.test.labels is None else dataset.test.labels.cpu().numpy()
    n = len(dataset.test)
    parts.append(
        planted(labels, site=contest.site.label, settings=settings, stream=stream, digest=identify, n_images=n)
    )
    return contest, merged(parts)


def n_images(shown: Shown | Failure) -> int:
    """How many images are kept of each atom."""
    return 0 if isinstance(shown, Failure) else shown.images.shape[1]


def contestant(cell: Cell, shown: Shown | Failure) -> Contestant:
    """A cell as it takes part.

    Raises:
        UsageError: It has no exemplars.
    """
    if isinstance(shown, Failure):
        raise UsageError(f"{cell.name}: {shown.reason}; expected exemplars; leave it out")
    images = shown.images[:, :N_SHOWN].numpy().astype(np.int64)
    return Contestant(method_id(cell), cell.label, images, shown.is_eligible.numpy())


def where_of(folder: Path, panel: str, site: str) -> Path:
    """The folder of a panel's work at one site; a label that makes no good folder name is hashed."""
    plain = site if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", site) else digest({"site": site})[:16]
    return folder / FOLDER / panel / plain


def ask(
    workshop: Workshop,
    suite: Suite,
    folder: Path,
    panel: Panel,
    report: Callable[[str, int, int], None],
    say: Callable[[str], None],
    only: Sequence[str] = (),
    accept: Sequence[str] = (),
) -> dict[str, list[Asked]]:
    """Ask the panel what it was not asked yet, at every site; returns what came of it, by the site's label.

    Args:
        workshop: Where decompositions are found and exemplars are kept.
        suite: The suite of the run.
        folder: The run.
        panel: Who judges.
        report: Told what is done, how much of it, of how much.
        say: Told what a person should know.
        only: Names of the judges to ask; none asks all. What others have answered counts all the same.
        accept: Judges that are used although they fail their calibration.

    A judge that stops at one site is not asked at the next.

    Raises:
        UsageError: There is nothing to compare, a judge is not ready, or another process judges otherwise.
        RepliesError, ManifestError: What is stored is damaged or of another judge, or cannot be written.
    """
    judges = [one for one in panel.judges if not only or one.name in only]
    rounds = drawn_everywhere(workshop, contests(suite, folder), panel.settings)
    prepared = ready(judges, [(where_of(folder, panel.name, one.site.label), drawn) for one, drawn in rounds])
    asked: dict[str, list[Asked]] = {}
    for contest, drawn in rounds:
        site = contest.site.label
        for label, reason in contest.left_out.items():
            say(f"{site}: {label} is not compared: {reason}")
        say(f"{site}: {len(contest.cells)} methods, {len(drawn.presentations)} presentations")

        def told(name: str, done: int, total: int, site: str = site) -> None:
            report(f"{site}: {name}", done, total)

        where = where_of(folder, panel.name, site)
        manifest = manifest_of(workshop, contest, drawn, panel.settings)
        with beside_others(where, manifest, context_of(suite, contest, panel, accept)):
            kept = where / PICTURES if panel.kind == "llm_panel" else None  # a proxy panel's are made in no time
            pixels = pixels_of(workshop, contest.site, panel.settings)
            grids = Grids(kept, pixels, manifest.recipes, panel.settings.cell_px)
            stopped = {one.judge for sitting in asked.values() for one in sitting if one.failed is not None}
            some = [one for one in judges if one.name not in stopped]
            sitting = ask_panel(
                some, manifest.presentations, grids.png, where / REPLIES, told, panel.settings.seed, prepared=prepared
            )
            asked[site] = asyncio.run(sitting)
    return asked


def ready(judges: Sequence[Judge], work: Sequence[tuple[Path, Drawn]]) -> dict[str, Mapping[str, Any]]:
    """What the judges say of themselves that have something left to answer, once for all sites.

    Raises:
        UsageError: Some are not ready; all of them are named.
    """

    def is_busy(judge: Judge, where: Path, drawn: Drawn) -> bool:
        path = where / REPLIES / f"{judge.name}.jsonl"
        answered = {one.presentation_id for one in read_replies(path)} if path.exists() else set()
        return any(one.id not in answered for one in drawn.presentations)

    try:
        return asyncio.run(preflight([one for one in judges if any(is_busy(one, *place) for place in work)]))
    except JudgeError as error:
        raise UsageError(str(error)) from error


def drawn_everywhere(workshop: Workshop, found: Sequence[Contest], settings: Settings) -> list[tuple[Contest, Drawn]]:
    """What is to be asked at every site, before anybody is.

    Raises:
        UsageError: At some sites nothing can be compared; all of them are named.
    """
    rounds, problems = [], []
    for contest in found:
        try:
            rounds.append(drawn_for(workshop, contest, settings))
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    return rounds


def pixels_of(workshop: Workshop, site: SiteSpec, settings: Settings) -> Pixels:
    """Reads images of the evaluation split by index: what the backbone sees of them, in enough pixels for a cell."""
    split = workshop.dataset(site).test
    split = split.at_least(settings.cell_px) if isinstance(split, Seen) else split
    return lambda rows: np.asarray(split.images(torch.as_tensor(list(rows))).numpy())


def manifest_of(workshop: Workshop, contest: Contest, drawn: Drawn, settings: Settings) -> Manifest:
    """What is to be asked at one site."""
    return Manifest.of(
        drawn,
        settings=settings,
        pool=[(method_id(cells[0]), label) for label, cells in contest.cells.items()],
        fingerprints={
            "dataset": workshop.dataset(contest.site).fingerprint,
            "backbone": workshop.backbone(contest.site).fingerprint,
        },
    )


def context_of(suite: Suite, contest: Contest, panel: Panel, accept: Sequence[str]) -> Context:
    """What else the conclusions of a site have to know."""
    return Context(
        suite=suite.name,
        site=contest.site.label,
        panel=panel.name,
        judges={judge.name: judge.kind for judge in panel.judges},
        accepted=tuple(accept),
        cells={label: tuple(cell.id for cell in cells) for label, cells in contest.cells.items()},
        left_out=dict(contest.left_out),
    )

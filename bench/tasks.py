"""The tasks of a run and what they wait for: backbones, activations, sweeps, units, decompositions, evaluations.

Cells are decomposed one by one, by several workers where a method works unit by unit. Those of one site under one pair
of seeds are then evaluated together, so that the backbone runs once for all methods; where that fails as a whole, each
is evaluated by itself. Runs that differ in the init seed alone are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.cache import digest
from bench.cells import Cell, SiteSpec
from bench.lanes import Task
from bench.stability import Comparison
from bench.sweeps import sweep_id
from methods.protocol import Divisible


def tasks_for(cells: Sequence[Cell], comparisons: Sequence[Comparison] = (), n_workers: int = 1) -> list[Task]:
    """The tasks of these cells and comparisons, in the order in which they are begun where nothing has to wait.

    With more than one worker, what works unit by unit is shared out among them.
    """
    cells = list({cell.id: cell for cell in cells}.values())  # a suite may show one cell under several labels
    backbones: dict[str, Task] = {}
    sweeps: dict[str, Task] = {}
    finding: list[Task] = []
    found = {cell.id for cell in cells}
    everything = [*cells, *(cell for one in comparisons for cell in one.cells if cell.id not in found)]
    tokens = extractions(everything)
    for cell in everything:
        first = backbone_task(cell.site)
        backbones.setdefault(first.id, first)
        if cell.site.encoder is not None:
            other = encoder_task(cell.site)
            backbones.setdefault(other.id, other)
        second = tokens[group_of(cell.site)]
        needs = (first.id, second.id, *((cell.leader.id,) if cell.leader else ()))
        if cell.selected_at is not None:
            third = Task(
                f"sweep {sweep_id(cell)}",
                f"{cell.site.label}/{cell.label}: sweep of {len(cell.method.variants)}",
                ("sweep", cell, 0),
                needs=(first.id, second.id),
            )
            sweeps.setdefault(third.id, third)
            needs += (third.id,)
        shares = shares_of(cell, needs, n_workers)
        finding += shares
        finding.append(Task(cell.id, cell.name, ("find", cell, 0), needs, after=tuple(one.id for one in shares)))
    finding = list({task.id: task for task in finding}.values())
    comparing = [
        Task(one.id, one.name, ("compare", one, 0), after=tuple(cell.id for cell in one.cells)) for one in comparisons
    ]
    return [*backbones.values(), *tokens.values(), *sweeps.values(), *finding, *comparing, *evaluations(cells)]


def shares_of(cell: Cell, needs: tuple[str, ...], n_workers: int) -> list[Task]:
    """The tasks that find a share each of the cell's units, side by side; none where that cannot be.

    There is one for each worker, always: a share that is not begun when the others are done costs nothing, and how
    long anything will take is not known here. Where the site has too few units, a share is empty (`bench.measuring`).
    """
    method = cell.method.built
    if n_workers < 2 or cell.leader is not None or not isinstance(method, Divisible):
        return []
    return [
        Task(f"units {cell.id} {share}", f"{cell.name}: share {share}", ("units", cell, (index, n_workers)), needs)
        for index in range(n_workers)
        for share in [f"{index + 1} of {n_workers}"]
    ]


def backbone_task(site: SiteSpec, what: str = "backbone") -> Task:
    """The task that trains or loads the site's backbone."""
    slices = {} if site.share == 1 else {"share": site.share}
    key = digest({**site.backbone.identity, "dataset": site.dataset.identity, **slices})
    return Task(f"backbone {key}", f"{site.label}: {what}", ("backbone", site, 0))


def encoder_task(site: SiteSpec) -> Task:
    """The task that trains or loads the network through which metrics may see the images."""
    if site.encoder is None:
        raise ValueError(f"site: {site.label!r} has no encoder; expected one; name it in the suite")
    return backbone_task(replace(site, backbone=site.encoder, encoder=None), "encoder")


def group_of(site: SiteSpec) -> str:
    """The same for sites whose activations come of one pass of one backbone over one data set."""
    own = {"dataset": site.dataset.identity, "backbone": site.backbone.identity}
    return digest({**own, "tokens_per_image": site.tokens_per_image, **site.unusual})


def extractions(cells: Sequence[Cell]) -> dict[str, Task]:
    """One task for each group of sites: the activations of all modules under all token seeds that cells need."""
    groups: dict[str, dict[tuple[str, int], SiteSpec]] = {}
    for cell in cells:
        pairs = groups.setdefault(group_of(cell.site), {})
        seeds = (cell.token_seed, *(() if cell.selected_at is None else cell.selected_at[:1]))
        for seed in seeds:
            pairs.setdefault((cell.site.module, seed), cell.site)
    return {group: extraction_of(group, pairs) for group, pairs in groups.items()}


def extraction_of(group: str, pairs: Mapping[tuple[str, int], SiteSpec]) -> Task:
    """The task that extracts these activations, by module and token seed."""
    sites = {module: site for (module, _), site in pairs.items()}
    seeds = list(dict.fromkeys(seed for _, seed in pairs))
    label = next(iter(sites.values())).label
    several = f" and {len(sites) - 1} more" if len(sites) > 1 else ""
    name = f"{label}{several}: activations of token seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    payload = ("activations", tuple((site, seed) for (_, seed), site in pairs.items()), 0)
    first = backbone_task(next(iter(sites.values())))
    return Task(f"activations {digest({'group': group, 'pairs': sorted(pairs)})}", name, payload, needs=(first.id,))


def site_of(task: Task) -> SiteSpec:
    """Where a task that comes before evaluation works; of several sites, the first."""
    kind, subject, _ = task.payload
    site: SiteSpec = subject.site if kind in ("find", "sweep") else subject[0][0] if kind == "activations" else subject
    return site


def evaluations(cells: Sequence[Cell]) -> list[Task]:
    """The evaluations: one for each site and pair of seeds, but for cells that are evaluated apart."""
    groups: dict[tuple[str, int, int, str], list[Cell]] = {}
    for cell in cells:
        apart = cell.id if cell.runs_alone or cell.runs_apart else ""  # what is timed has the memory to itself too
        groups.setdefault((digest(cell.site.identity), cell.token_seed, cell.init_seed, apart), []).append(cell)
    return [evaluation_of(group) for group in groups.values()]


def evaluation_of(cells: Sequence[Cell]) -> Task:
    """The task that evaluates these cells, all of one site."""
    first = cells[0]
    methods = first.label if len(cells) == 1 else f"{len(cells)} methods"
    encoders = () if first.site.encoder is None else (encoder_task(first.site).id,)
    return Task(
        f"evaluation {digest({'cells': [cell.id for cell in cells]})}",
        f"{first.site.label}: evaluation of {methods} (t{first.token_seed}/i{first.init_seed})",
        ("evaluate", tuple(cells), 0),
        after=(*(cell.id for cell in cells), *encoders),
        parts=tuple(evaluation_of([cell]) for cell in cells) if len(cells) > 1 else (),
        is_alone=first.runs_alone,
    )

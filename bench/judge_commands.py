"""The commands about judges: ask a panel about a run, print what it found, read old replies again, start a server."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import UsageError
from bench.registry import Registry, suite_path, unknown
from bench.terminal import NO_PLUGINS, CacheDir, Json, Plugins, Quiet, SuiteName, resolved, show, tell, waiting

if TYPE_CHECKING:
    from bench.cells import Suite
    from bench.conclusions import Conclusion
    from bench.stages import StartWorkshop

app = typer.Typer(
    help="Panels of judges: vision-language models behind endpoints, or the proxy panel that needs none.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RunDir = Annotated[Path, typer.Option("--run", help="Folder of a run.")]
PanelName = Annotated[str, typer.Option("--panel", help="A shipped panel, or the path of a .toml file.")]
Accept = Annotated[
    list[str], typer.Option("--accept", metavar="JUDGE", help="Use it although it fails its calibration; repeatable.")
]
Asking = Annotated[
    list[str], typer.Option("--judge", metavar="JUDGE", help="Ask this one of the panel only; repeatable.")
]
NOBODY: list[str] = []
OTHER_METHODS = "judged of methods that are no longer the run's: the report is written, the tables are left as they are"
FORMATS = ("md", "json")
SERVED_AT = {"qwen3_vl_30b_a3b": 8001, "gemma3_27b": 8002, "internvl3_14b": 8003}
"""Where the shipped panels expect the paper's judges."""


@app.command("run")
def judge_run(
    suite: SuiteName,
    panel: PanelName = "proxy",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/SUITE if not given.")] = None,
    judge: Asking = NOBODY,
    accept: Accept = NOBODY,
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Have a panel compare the methods of a run, or go on with it; print what it found."""
    path = suite_path(suite)
    with waiting("reading the suite"):
        from bench.cache import default_cache
        from bench.folder import changes_of
        from bench.stages import StartWorkshop
        from bench.suites import load_suite

        folder = out or Path("runs") / path.stem
        loaded = load_suite(suite, Registry(plugin), changes_of(folder))
    start = StartWorkshop(resolved(plugin), cache or default_cache())
    found, failed = judged(loaded, folder, panel, start, plugin, is_quiet=quiet or as_json, only=judge, accept=accept)
    if as_json:
        from bench.conclusions import told

        show([told(one) for one in found])
    elif not quiet:
        print("\n".join((one.folder / "report.md").read_text(encoding="utf-8") for one in found))
    if failed:
        for line in failed:
            tell(f"error: {line}")
        raise typer.Exit(3)


def judged(
    suite: "Suite",
    folder: Path,
    panel: str,
    start: "StartWorkshop",
    plugins: list[Path],
    *,
    is_quiet: bool,
    only: list[str] = NOBODY,
    accept: list[str] = NOBODY,
) -> tuple[list["Conclusion"], list[str]]:
    """Ask a panel about a run and put what it found into the run; also what each judge that failed said."""
    with waiting("reading the panel"):
        from bench.conclusions import changes, concluded, record, written
        from bench.judged import check_judges
        from bench.judging import ask, where_of
        from bench.lanes import Task
        from bench.panels import load_panel
        from bench.progress import Display

        chosen = load_panel(panel, Registry(plugins))
    names = {one.name for one in chosen.judges}
    for option, given in (("--accept", accept), ("--judge", only)):
        for name in given:
            if name not in names:
                raise UsageError(f"{option} {unknown('judge', name, names, 'the panel')}")
    check_judges(folder, chosen.name, [one for one in chosen.judges if only and one.name not in only])
    display, task = Display(1, is_quiet=is_quiet), Task("judging", f"panel {chosen.name}", ())

    def report(what: str, done: int, total: int) -> None:
        display.progressed(task, what, done, total)

    began = time.perf_counter()
    with display:
        asked = ask(
            start.workshop(report, display.said), suite, folder, chosen, report, display.said, only=only, accept=accept
        )
    found = [concluded(where_of(folder, chosen.name, site)) for site in asked]
    for one in found:
        changes(one)
        written(one)
    is_new = any(one.n_answered for panel_of_site in asked.values() for one in panel_of_site)
    left_out = record(folder, found, time.perf_counter() - began if is_new else None)
    for one in left_out:
        display.said(f"{one.context.site}: {OTHER_METHODS}")
    failed = [
        f"{site}: {one.judge} stopped after {one.n_before + one.n_answered} of {one.n_presentations}: {one.failed}"
        for site, panel_of_site in asked.items()
        for one in panel_of_site
        if one.failed is not None
    ]
    return found, failed


def judged_at_the_end(
    suite: "Suite", folder: Path, start: "StartWorkshop", plugins: list[Path], *, is_quiet: bool
) -> list[str]:
    """Have the suite's own panel judge what a run found, where it names one; what each judge that failed said.

    A run that has no two methods to compare yet, because it was narrowed down say, is judged later.
    """
    if not suite.panel:
        return []
    from bench.judging import contests
    from judges.grids import GridsError
    from judges.manifest import ManifestError
    from judges.replies import RepliesError

    try:
        contests(suite, folder)
    except UsageError:
        return []
    try:
        return judged(suite, folder, suite.panel, start, plugins, is_quiet=is_quiet)[1]
    except (UsageError, GridsError, ManifestError, RepliesError) as error:
        return str(error).splitlines()


@app.command("report")
def judge_report(
    run_dir: RunDir,
    panel: PanelName = "proxy",
    form: Annotated[str, typer.Option("--format", help="md or json.")] = "md",
) -> None:
    """Print what a panel found, from the stored replies; the figures are written beside them."""
    from bench.conclusions import concluded, sites_of, told, written

    if form not in FORMATS:
        raise UsageError(f"--format: got {form!r}; expected one of {', '.join(FORMATS)}; choose one")
    found = [concluded(where) for where in sites_of(run_dir, panel)]
    for one in found:
        written(one)
    if form == "json":
        show([told(one) for one in found])
        return
    for one in found:
        print((one.folder / "report.md").read_text(encoding="utf-8"))
    tell("figures: " + ", ".join(str(path) for one in found for path in sorted(one.folder.glob("*.svg"))))


@app.command("reparse")
def judge_reparse(run_dir: RunDir, panel: PanelName = "proxy", as_json: Json = False) -> None:
    """Read stored replies again with this version's reader; nobody is asked."""
    from bench.conclusions import changes, concluded, record, sites_of, written

    found = [concluded(where) for where in sites_of(run_dir, panel)]
    changed = {one.context.site: changes(one) for one in found}
    for one in found:
        written(one)
    for one in record(run_dir, found):
        tell(f"{one.context.site}: {OTHER_METHODS}")
    if as_json:
        show(changed)
        return
    for site, judges in changed.items():
        for judge, n in judges.items():
            print(f"{site}: {judge}: {n} verdicts are read otherwise than before")


@app.command("serve")
def judge_serve(
    name: Annotated[str, typer.Argument(metavar="JUDGE", help="One of the paper's judges.")],
    port: Annotated[int | None, typer.Option(help="Where it listens; the shipped panels' port if not given.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of the weights.")] = None,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs that share the weights.")] = 1,
    memory: Annotated[float | None, typer.Option(help="Share of the GPU's memory; vLLM's own if not given.")] = None,
    starts: Annotated[bool, typer.Option("--run", help="Start it, and wait until it ends.")] = False,
    env: Annotated[Path, typer.Option("--env", help="The environment that has vLLM.")] = Path(".venv-judges"),
) -> None:
    """Print the command that serves one of the paper's judges, or start it."""
    from judges.serving import serve_command, shell_line, start

    try:
        words = serve_command(
            name,
            port=port or SERVED_AT.get(name, 8000),
            revision=revision,
            tensor_parallel=tensor_parallel,
            gpu_memory_utilization=memory,
        )
        if starts:
            raise typer.Exit(start(words, env))
    except (LookupError, ValueError) as error:
        raise UsageError(str(error.args[0])) from error
    print(shell_line(words))
    if revision is not None:
        print(f'# in the panel, so that it is part of what is recorded: revision = "{revision}"')


@app.command("cost")
def judge_cost(
    methods: Annotated[int, typer.Option(min=2, help="Methods that are compared.")] = 10,
    unit_pairs: Annotated[int, typer.Option(min=1, help="Unit pairs of every two methods and token seed.")] = 50,
    token_seeds: Annotated[int, typer.Option(min=1, help="Token seeds.")] = 3,
) -> None:
    """Print what the paper's judges would cost: calls, tokens and expected hours, computed and not measured."""
    from judges.costs import cost_table, n_presentations

    print(cost_table([n_presentations(methods, unit_pairs=unit_pairs, token_seeds=token_seeds)]))

"""What all commands share: the options they have in common, JSON, lines on standard error, a spinner."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

Plugins = Annotated[list[Path], typer.Option("--plugin", help="A Python file with components; may be repeated.")]
CacheDir = Annotated[Path | None, typer.Option("--cache", help="Where built things are kept between runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no table; errors only.")]
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A shipped suite, or the path of a .toml file.")]

Data = Annotated[
    str, typer.Option("--data", metavar="PATH", help="Where the suite leaves its data open: a folder, or NAME:PATH.")
]
Weights = Annotated[
    list[str],
    typer.Option("--weights", metavar="NAME=PATH", help="Weights of a backbone; repeatable."),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Random weights in place of trained ones; every record says so.")
]
Scale = Annotated[float, typer.Option("--scale", help="Share of the images, 0.01 say; every record says so.")]
PrecisionName = Annotated[
    str, typer.Option("--precision", help="Of the backbone's forward pass: float32, bfloat16 or float16.")
]
NoSweep = Annotated[bool, typer.Option("--no-sweep", help="One configuration of each family; every record says so.")]

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/SUITE if not given.")]
Only = Annotated[list[str], typer.Option("--only", metavar="KEY=VALUE", help="Narrow the cells down; repeatable.")]
RunDir = Annotated[Path, typer.Option("--run", help="Folder of a run.")]

Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes; 0 works in this one. Two if not given, or one for each GPU.")
]
Engine = Annotated[str, typer.Option("--engine", help="local, or ray (the extra of that name).")]
Address = Annotated[str, typer.Option("--address", help="Of a Ray cluster that runs already; auto finds it.")]
Device = Annotated[str, typer.Option("--device", help="cpu; cuda for every GPU; or some of them: cuda:0,cuda:2.")]
PanelName = Annotated[
    str, typer.Option("--panel", help="Who judges at the end, not the suite's panel; none for nobody.")
]

NO_FILTER: list[str] = []
NO_PLUGINS: list[Path] = []
NO_WEIGHTS: list[str] = []


def resolved(plugins: list[Path]) -> tuple[Path, ...]:
    """The plugin files, wherever a process is started."""
    return tuple(path.resolve() for path in plugins)


def show(value: Any) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=1))


def tell(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)


@contextmanager
def waiting(for_what: str) -> Iterator[None]:
    """A spinner in a terminal while something slow is imported; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(for_what) if console.is_terminal else nullcontext():
        yield

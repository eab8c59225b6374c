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

NO_PLUGINS: list[Path] = []


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

"""Commands for people who add components: `list`, `new-method`, `check-method`."""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import UnknownNameError, UsageError
from bench.registry import KINDS, Entry, Registry, shipped_panels, shipped_suites, unknown
from bench.terminal import NO_PLUGINS, Json, Plugins, show, waiting

NO_OPTIONS: list[str] = []
FILES = {"suites": shipped_suites, "panels": shipped_panels}
"""Kinds of files that are shipped, with what finds them."""


def list_components(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{', '.join(KINDS)}, suites or panels.")],
    plugin: Plugins = NO_PLUGINS,
    as_json: Json = False,
) -> None:
    """List what there is of a kind."""
    if kind not in (*KINDS, *FILES):
        raise UnknownNameError(unknown("KIND", kind, (*KINDS, *FILES), "eludebench list --help"))
    rows = file_rows(FILES[kind]()) if kind in FILES else component_rows(kind, Registry(plugin))
    if as_json:
        show(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        owner = "" if row["owner"] == "eludebench" else f" [{row['owner']}]"
        print(f"{row['name']:<{width}}  {row['summary']}{owner}")
    if not rows:
        print(f"no {kind} are registered", file=sys.stderr)


def new_method(
    name: Annotated[str, typer.Argument(help="Its name: lower case, as in Python.")],
    file: Annotated[Path | None, typer.Option(help="Where to write it; NAME.py if not given.")] = None,
) -> None:
    """Write a small working method to start from."""
    from bench.template import method_file

    if name in Registry().tables["methods"]:
        raise UsageError(f"NAME: got {name!r}, which is a method already; expected a new name; choose another")
    path = file or Path(f"{name}.py")
    text = method_file(name, path.name)
    if path.exists():
        raise UsageError(f"--file: {path} exists already; expected a new file; give another name")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--file: cannot write {path} ({error.strerror}); expected a writable folder; name another"
        ) from error
    print(f"wrote {path}; next: eludebench check-method {name} --plugin {path}")


def check_method(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="The method's name, or its plugin file.")],
    plugin: Plugins = NO_PLUGINS,
    option: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="An option, as in TOML; repeatable.")
    ] = NO_OPTIONS,
    as_json: Json = False,
) -> None:
    """Hold a method to the contract of all methods."""
    files = [*plugin, Path(name)] if name.endswith(".py") else plugin
    registry = Registry(files)
    entry = only_method(registry, Path(name)) if name.endswith(".py") else registry.find("methods", name)
    with waiting("loading the method"):
        from bench.contract import checked
        from bench.options import Problems, built

        problems = Problems("check-method")
        made = built(entry.load(), options_of(option), "--option", problems)
        if made is None:
            raise UsageError("\n".join(problems.found))
        method = made[0]
    results: dict[str, dict[str, str | None]] = {}
    for law, outcome in checked(method):
        results[law] = {"verdict": outcome.verdict, "reason": outcome.reason}
        if not as_json:
            print(f"{outcome.verdict:<9}  {law}{': ' + outcome.reason if outcome.reason else ''}")
    if as_json:
        show(results)
    if any(result["verdict"] == "BROKEN" for result in results.values()):
        raise typer.Exit(3)


def only_method(registry: Registry, path: Path) -> Entry:
    """The one method that a plugin file holds.

    Raises:
        UsageError: It holds none, or several.
    """
    entries = [entry for entry in registry.from_files("methods") if entry.owner == path.name]
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise UsageError(f"NAME: {path} holds {names}; expected one method; name it and give the file with --plugin")
    return entries[0]


def options_of(pairs: list[str]) -> dict[str, Any]:
    """Options as a suite would hold them; a value that is no TOML is a text.

    Raises:
        UsageError: A pair has no equals sign.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--option: got {pair!r}; expected KEY=VALUE; write an equals sign")
        try:
            options[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = text
    return options


def component_rows(kind: str, registry: Registry) -> list[dict[str, str]]:
    """Name, summary and owner of each component."""
    entries = sorted(registry.tables[kind].values(), key=lambda entry: entry.name)
    return [{"name": entry.name, "summary": entry.summary, "owner": entry.owner} for entry in entries]


def file_rows(files: Mapping[str, Path]) -> list[dict[str, str]]:
    """Name and description of each shipped file."""
    texts = {name: tomllib.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}
    return [{"name": name, "summary": str(raw["description"]), "owner": "eludebench"} for name, raw in texts.items()]

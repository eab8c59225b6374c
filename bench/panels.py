"""Panels of judges: short TOML files that name judges with their options, and the settings of the protocol."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from bench import UsageError
from bench.asked import found
from bench.cells import Suite
from bench.options import Problems, built, checked_keys, text_of, toml_of
from bench.registry import Registry, panel_path
from judges.protocol import Judge, JudgeKind, Settings
from results.layout import PANELS, Seeds, TableSpec
from results.tables import TABLES

PANEL_KEYS: dict[str, Any] = {"description": str, "settings": dict, "judges": list}


class PanelError(UsageError):
    """A panel cannot be used; one line per problem."""


@dataclass(frozen=True)
class Panel:
    """Who judges, and how.

    Attributes:
        name: The file's, without its ending.
        settings: The protocol.
        judges: The judges, each with its options.
    """

    name: str
    settings: Settings
    judges: tuple[Judge, ...]

    @property
    def kind(self) -> Seeds:
        """Whether all of them are vision-language models; a single other one makes it a proxy panel."""
        return "llm_panel" if all(judge.kind == "vlm" for judge in self.judges) else "proxy_panel"


def load_panel(name: str, registry: Registry) -> Panel:
    """The panel of that name or path.

    Raises:
        PanelError: It cannot be read, or something in it is wrong; the message holds every problem, one a line.
    """
    path = panel_path(name)
    problems = Problems(f"panel {path.name}")
    raw = toml_of(text_of(path, problems), problems)
    panel = None if problems.found else parse(path.stem, raw, registry, problems)
    if problems.found or panel is None:
        raise PanelError("\n".join(problems.found))
    return panel


def judged_by(suite: Suite, name: str, registry: Registry) -> Suite:
    """A suite with another panel at its end: "none" is nobody, an empty name the suite's own.

    Tables of what the other kind of panel says are left out, and where no table is left, the leaderboard is made.

    Raises:
        PanelError: There is no such panel, or something in it is wrong.
    """
    if not name:
        return suite
    kind = None if name == "none" else load_panel(name, registry).kind
    tables = tuple(one for one in suite.tables if kind_told_by(one) in (None, kind))
    return replace(suite, panel="" if kind is None else name, tables=tables or ("leaderboard",))


def kind_told_by(table: str) -> Seeds | None:
    """The kind of panel that a table tells of and of nothing else, if it is such a table."""
    spec = TABLES[table]
    kinds = {column.seeds for column in spec.columns} if isinstance(spec, TableSpec) else set()
    return next(iter(kinds)) if len(kinds) == 1 and kinds <= set(PANELS) else None


def parse(name: str, raw: Mapping[str, Any], registry: Registry, problems: Problems) -> Panel | None:
    """The panel, or None with what is wrong noted in `problems`."""
    checked_keys(raw, PANEL_KEYS, "", problems)
    table = raw.get("settings", {})
    settings = built(Settings, table if isinstance(table, dict) else {}, "settings", problems)
    tables = raw.get("judges") if isinstance(raw.get("judges"), list) else []
    if not tables:
        problems.add("judges: got none; expected at least one [[judges]] table; add one")
    judges = [parse_judge(i, one, registry, problems) for i, one in enumerate(tables or [])]
    names = [judge.name for judge in judges if judge]
    for twice in dict.fromkeys(one for one in names if names.count(one) > 1):
        problems.add(f"judges: name {twice!r} is used twice; expected distinct names; give one another `name`")
    if problems.found or settings is None:
        return None
    return Panel(name, settings[0], tuple(asked_as(judge, settings[0]) for judge in judges if judge))


def parse_judge(i: int, table: Any, registry: Registry, problems: Problems) -> Judge | None:
    """One [[judges]] table: everything in it but `judge` is an option."""
    where = f"judges[{i}]"
    name = table.get("judge") if isinstance(table, dict) else None
    if not isinstance(name, str):
        problems.add(f"{where}.judge: got {name!r}; expected the name of a judge; see `eludebench list judges`")
        return None
    entry = found(registry, "judges", name, f"{where}.judge", problems)
    if entry is None:
        return None
    options = {key: value for key, value in table.items() if key != "judge"}
    if "reask" in options:
        problems.add(
            f"{where}.reask: got {options['reask']!r}; expected it for all judges alike; write it in [settings]"
        )
        return None
    try:
        made = built(entry.load(), options, where, problems)
    except UsageError as error:
        problems.add(f"{where}: {error}")
        return None
    if made is None:
        return None
    lacking = [one for one in ("name", "kind", "n_at_once", "prepare", "compare") if not hasattr(made[0], one)]
    if lacking:
        problems.add(f"{where}: {entry.name!r} of {entry.owner} has no {', '.join(lacking)}; expected them; add them")
        return None
    judge: Judge = made[0]
    if judge.kind not in get_args(JudgeKind):
        kinds = ", ".join(get_args(JudgeKind))
        problems.add(f"{where}: {entry.name!r} has kind {judge.kind!r}; expected one of {kinds}; change it")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", judge.name):
        problems.add(f"{where}.name: got {judge.name!r}; expected letters, digits, '_', '.', '-'; it names a file")
    return judge


def asked_as(judge: Judge, settings: Settings) -> Judge:
    """The judge, asking again as the settings say, where it is one that can."""
    if not hasattr(judge, "reask"):
        return judge
    return replace(judge, reask=settings.reask)  # type: ignore[type-var]

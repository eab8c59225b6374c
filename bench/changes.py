"""What a command changes of a suite: where the data and the weights are, how much of the data, in which precision.

A suite says what is compared; where things are differs from machine to machine. So the command line fills in what a
suite leaves open, and may take a slice of it. The changes are applied to the suite as it is written, before it is
read, so that everything after sees one suite; they are kept in `run.json`, and a folder holds a run of one of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import UsageError
from bench.options import Problems
from bench.registry import BUILT_IN, Entry, Registry, unknown


@dataclass(frozen=True)
class Changes:
    """What a command line says beside the suite's name.

    Attributes:
        data: The data set where the suite leaves its place open: a path, NAME:PATH, or the NAME of one without a place.
        weights: NAME=PATH: the weights of the backbone of that name.
        random_weights: Every backbone that loads weights has random ones.
        scale: Share of the images; counts of tokens that methods take as options shrink with it.
        precision: Of the backbones' forward passes; what the suite says if empty.
        no_sweep: Methods that a suite sweeps are taken with the options that it gives them beside, unswept.
    """

    data: str = ""
    weights: tuple[str, ...] = ()
    random_weights: bool = False
    scale: float = 1.0
    precision: str = ""
    no_sweep: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and 0 < self.scale <= 1):
            raise UsageError(f"--scale: got {self.scale}; expected a share above 0 and up to 1, 0.01 say; change it")
        for pair in self.weights:
            name, equals, path = pair.partition("=")
            if not (name and equals and path):
                raise UsageError(f"--weights: got {pair!r}; expected NAME=PATH, the name of a backbone; change it")
        if self.weights and self.random_weights:
            raise UsageError("--weights: got both it and --random-weights; expected one of them; leave one out")

    @classmethod
    def kept_in(cls, plan: Mapping[str, Any]) -> "Changes":
        """Those that a run was made with, from its `run.json`."""
        kept = plan.get("changes", {})
        return cls(**{**kept, "weights": tuple(kept.get("weights", ()))})

    def as_json(self) -> dict[str, Any]:
        """What is not as usual."""
        usual = asdict(Changes())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def alike(self, other: "Changes") -> bool:
        """Whether both change the same things; where data and weights are is nothing that a run is told apart by."""

        def kind(one: Changes) -> Any:
            names = sorted(pair.partition("=")[0] for pair in one.weights)
            return replace(one, data="", weights=()), names, bool(one.data)

        return bool(kind(self) == kind(other))

    def __str__(self) -> str:
        """As options of a command."""
        words = [f"--data {self.data}"] if self.data else []
        words += [f"--weights {one}" for one in self.weights]
        words += ["--random-weights"] if self.random_weights else []
        words += [f"--scale {self.scale:g}"] if self.scale < 1 else []
        words += [f"--precision {self.precision}"] if self.precision else []
        words += ["--no-sweep"] if self.no_sweep else []
        return " ".join(words) or "no changes"

    def applied(self, raw: Mapping[str, Any], registry: Registry, problems: Problems) -> dict[str, Any]:
        """The suite with these changes, as it would be written; what cannot be changed is noted in `problems`."""
        if not self.as_json():
            return dict(raw)
        sites = [self.site(table, registry) if isinstance(table, dict) else table for table in listed(raw, "sites")]
        methods = [self.scaled(self.unswept(table), registry) for table in listed(raw, "methods")]
        changed = {**raw, "sites": sites, "methods": methods}
        if self.no_sweep and isinstance(raw.get("tables"), list):
            changed["tables"] = [name for name in raw["tables"] if name != "sweep"]
        if self.data and sites == [replace(self, data="").site(table, registry) for table in listed(raw, "sites")]:
            problems.add("--data: got it for a suite that leaves no data open; expected one that does; leave it out")
        for pair in self.weights:
            self.check(pair, sites, problems)
        return changed

    def unswept(self, table: Any) -> Any:
        """A method's options without its sweep, where there is to be none."""
        if not (self.no_sweep and isinstance(table, dict)):
            return table
        return {name: value for name, value in table.items() if name != "sweep"}

    def check(self, pair: str, sites: Sequence[Any], problems: Problems) -> None:
        """Note weights that no site asks for."""
        name = pair.partition("=")[0]
        names = [component_name(table.get(kind)) for table in sites for kind in ("backbone", "encoder") if table]
        if name not in names:
            problems.add(f"--weights {unknown('backbone', name, {one for one in names if one}, 'the suite')}")

    def site(self, table: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
        """One site with these changes."""
        changed = dict(table)
        if self.scale < 1:
            changed["share"] = self.scale * table.get("share", 1.0)
        if self.precision:
            changed["precision"] = self.precision
        given = table.get("dataset")
        caveats = ["families that the suite sweeps are not swept"] if self.no_sweep else []
        if self.data and is_open(given, registry):
            changed["dataset"], caveat = self.dataset(given, registry)
            caveats += [caveat] if caveat else []
        if caveats:
            changed["caveat"] = "; ".join([*([table["caveat"]] if "caveat" in table else []), *caveats])
        for kind in ("backbone", "encoder"):
            name, named = component_name(table.get(kind)), dict(pair.split("=", 1) for pair in self.weights)
            weights = named.get(name, "random" if self.random_weights and loads_weights(name, registry) else "")
            if weights:
                changed[kind] = {**as_table(table[kind]), "checkpoint": weights}
        return changed

    def dataset(self, given: Any, registry: Registry) -> tuple[dict[str, Any], str]:
        """The data set that stands for one that is open, and what has to be said of that."""
        own = as_table(given)
        name, _, place = self.data.partition(":")
        if name not in registry.tables["datasets"]:
            return {**own, **dict.fromkeys(places_of(own["name"], registry)[:1], self.data)}, ""
        places = places_of(name, registry)
        given_places = place.split(",") if place else []
        if len(given_places) != len(places):
            wanted = f"{name}:{','.join(one.upper() for one in places)}" if places else name
            raise UsageError(f"--data: got {self.data!r}; expected {wanted}; change it")
        kept = own if own["name"] == name else {"name": name}
        changed = {**kept, **dict(zip(places, given_places, strict=True))}
        return changed, "" if places else f"{name} in place of the suite's own data"

    def scaled(self, table: Any, registry: Registry) -> Any:
        """A method's options with its counts of tokens scaled down."""
        entry = registry.tables["methods"].get(str(table.get("name"))) if isinstance(table, dict) else None
        if entry is None or self.scale == 1:
            return table
        least: Mapping[str, int] = getattr(entry.load(), "scales", {})

        def shrunk(options: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name: max(least[name], round(value * self.scale)) if name in least and is_count(value) else value
                for name, value in options.items()
            }

        changed = shrunk(table)
        if isinstance(table.get("at"), dict):
            changed["at"] = {site: shrunk(own) if isinstance(own, dict) else own for site, own in table["at"].items()}
        return changed


def changes_from(
    data: str, weights: Sequence[str], random_weights: bool, scale: float, precision: str, no_sweep: bool
) -> Changes:
    """What a command line says, with paths that mean the same wherever they are read later."""

    def whole(place: str) -> str:
        return str(Path(place).expanduser().absolute()) if Path(place).expanduser().exists() else place

    name, colon, places = data.partition(":")
    if colon:
        data = f"{name}:{','.join(map(whole, places.split(',')))}"
    elif data and data not in BUILT_IN["datasets"]:
        data = whole(data)
    pairs = (pair.partition("=") for pair in weights)
    absolute = sorted(f"{name}{equals}{whole(path)}" for name, equals, path in pairs)
    return Changes(data, tuple(absolute), random_weights, scale, precision, no_sweep)


def is_count(value: Any) -> bool:
    """Whether an option is a number of things, and not a share, a switch or left to its default."""
    return type(value) in (int, float) and value >= 1


def listed(raw: Mapping[str, Any], key: str) -> list[Any]:
    """The tables under a key; none where it holds something else, which is told when the suite is read."""
    found = raw.get(key)
    return list(found) if isinstance(found, list) else []


def as_table(given: Any) -> dict[str, Any]:
    """A component as a table with a name."""
    return dict(given) if isinstance(given, dict) else {"name": given}


def component_name(given: Any) -> str:
    """The name of a component; empty where there is none."""
    name = as_table(given).get("name")
    return name if isinstance(name, str) else ""


def entries_of(kind: str, name: str, registry: Registry) -> Iterator[Entry]:
    """The registered component of that name, if there is one: that there is none is told when the suite is read."""
    try:
        yield registry.find(kind, name)
    except UsageError:
        return


def places_of(name: str, registry: Registry) -> tuple[str, ...]:
    """The options of a data set that say where it is, and have to be given."""
    kinds = [entry.load() for entry in entries_of("datasets", name, registry)]
    return tuple(place for kind in kinds for place in getattr(kind, "places", ()) if getattr(kind, place, "") == "")


def is_open(given: Any, registry: Registry) -> bool:
    """Whether a data set has a place, and the suite does not say which."""
    own = as_table(given)
    places = places_of(component_name(given), registry)
    return bool(places) and not any(own.get(place) for place in places)


def loads_weights(name: str, registry: Registry) -> bool:
    """Whether backbones of that name load weights."""
    return any(getattr(entry.load(), "is_loaded", False) for entry in entries_of("backbones", name, registry))

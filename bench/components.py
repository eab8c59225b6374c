"""Sites as a suite writes them, and the components that it names with their options; read strictly, before any work."""

from collections.abc import Mapping
from typing import Any, get_args

from bench import UsageError, zoo
from bench.asked import found
from bench.backbones import FACTORY_NEEDS
from bench.cells import Component, Precision, SiteSpec, Stored
from bench.lanes import one_line
from bench.options import Problems, built, checked_keys
from bench.registry import Entry, Registry
from bench.sites import find_layer, paths_of

SITE_KEYS: dict[str, Any] = {"label": str, "module": str, "tokens_per_image": int, "share": (int, float), "caveat": str}
SITE_KEYS |= dict.fromkeys(("precision", "stored"), str)
SITE_KEYS |= dict.fromkeys(("dataset", "backbone", "encoder"), (str, dict))
NEEDED = {
    "dataset": ("version", "load"),
    "backbone": FACTORY_NEEDS,
    "method": ("version", "reads", "properties", "decompose", "encode"),
}


def parse_sites(i: int, table: Mapping[str, Any], registry: Registry, problems: Problems) -> list[SiteSpec]:
    """One [[sites]] table; the module is looked up in the architecture, before any weights exist.

    A module is a path, a layer as the catalogue labels it ("layer 12"), or a pattern, which stands for several sites.
    """
    where = f"sites[{i}]"
    checked_keys(table, SITE_KEYS, where, problems)
    parts = {kind: component(table, kind, where, registry, problems) for kind in ("dataset", "backbone")}
    module = table.get("module")
    if not isinstance(module, str):
        problems.add(f"{where}.module: got {module!r}; expected the module path of a linear layer; name it")
        return []
    tokens = table.get("tokens_per_image", 2)
    if type(tokens) is not int or tokens < 1:
        problems.add(f"{where}.tokens_per_image: got {tokens!r}; expected at least 1; raise it")
    choices = {name: table.get(name, "float32") for name in ("precision", "stored")}
    for name, kind in (("precision", Precision), ("stored", Stored)):
        if choices[name] not in get_args(kind):
            problems.add(
                f"{where}.{name}: got {choices[name]!r}; expected one of {', '.join(get_args(kind))}; change it"
            )
    share = table.get("share", 1.0)
    if type(share) not in (int, float) or not 0 < share <= 1:
        problems.add(f"{where}.share: got {share!r}; expected a share above 0 and up to 1; change it")
        return []
    dataset, backbone = parts["dataset"], parts["backbone"]
    if not dataset or not backbone:
        return []
    paths = paths_at(backbone, module, where, problems)
    encoder = component(table, "encoder", where, registry, problems) if "encoder" in table else None
    label, caveat = str(table.get("label", dataset.entry.name)), str(table.get("caveat", ""))
    labels = [label] if len(paths) == 1 else [f"{label}:{path}" for path in paths]
    return [
        SiteSpec(own, dataset, backbone, path, tokens, encoder, **choices, share=float(share), caveat=caveat)
        for own, path in zip(labels, paths, strict=True)
    ]


def paths_at(backbone: Component, module: str, where: str, problems: Problems) -> list[str]:
    """The module paths that a suite's `module` stands for; none, with the problem noted, where it stands for none."""
    try:
        path, skeleton = zoo.path_of(backbone.entry.name, module), backbone.built.skeleton()
        if not set(path) & set("*?["):
            find_layer(skeleton, path)
            return [path]
        return list(paths_of(skeleton, path))
    except UsageError as error:
        problems.add(f"{where}: {error}")
    except Exception as error:  # whatever a library says of an architecture that cannot be built
        problems.add(f"{where}.backbone: {one_line(error)}; expected options that make a network; change them")
    return []


def component(
    table: Mapping[str, Any], kind: str, where: str, registry: Registry, problems: Problems
) -> Component | None:
    """A data set, a backbone or an encoder, which is a backbone: a name alone, or a table with `name` and options."""
    given = table.get(kind)
    options = dict(given) if isinstance(given, dict) else {"name": given}
    name = options.pop("name", None)
    if not isinstance(name, str):
        problems.add(f"{where}.{kind}: got {given!r}; expected a name, or a table with a name; add it")
        return None
    is_a = "backbone" if kind == "encoder" else kind
    entry = found(registry, f"{is_a}s", name, f"{where}.{kind}", problems)
    return with_options(is_a, entry, options, f"{where}.{kind}", problems) if entry else None


def with_options(
    kind: str, entry: Entry, options: Mapping[str, Any], where: str, problems: Problems
) -> Component | None:
    """The component with these options, or None with what is wrong noted."""
    try:
        cls = entry.load()
    except UsageError as error:
        problems.add(f"{where}: {error}")
        return None
    for name in sorted(entry.preset.keys() & options.keys()):
        problems.add(
            f"{where}.{name}: {entry.name!r} stands for {entry.preset[name]!r}; expected no other; leave it out"
        )
    made = built(cls, {**options, **entry.preset}, where, problems)
    if made is None:
        return None
    lacking = [name for name in NEEDED[kind] if not hasattr(made[0], name)]
    if lacking:
        problems.add(f"{where}: {entry.name!r} of {entry.owner} has no {', '.join(lacking)}; expected them; add them")
        return None
    return Component(entry, made[1], made[0])

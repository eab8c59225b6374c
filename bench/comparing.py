"""Which numbers of which runs stand beside each other, and what of two runs is not the same beside their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bench import UsageError
from bench.changes import Changes
from bench.folder import ABSENT, FolderError, layout_of, outcomes, read_plan
from bench.verdicts import rows_for
from metrics.catalogue import ROWS
from results.compare import Side, differences
from results.compared import Compared
from results.layout import Layout, Seeds
from results.records import Record
from results.unlike import Pairs, sameness, unlike


@dataclass(frozen=True)
class _Run:
    """A run that is compared."""

    plan: Mapping[str, Any]
    layout: Layout
    groups: Mapping[str, Sequence[Record]]

    @classmethod
    def at(cls, folder: Path, argument: str) -> "_Run":
        """The run in a folder.

        Raises:
            UsageError: It holds none, or one without records.
        """
        plan = read_plan(folder, argument)
        groups = outcomes(folder)
        if not groups:
            raise UsageError(
                f"{argument}: got {folder}, a run without records; expected some to compare; "
                f"`eludebench run {plan['suite']} --out {folder}` first"
            )
        return cls(plan, layout_of(plan), groups)

    def side(self, site: str, label: str, over: Seeds) -> Side:
        """What it has of one method at one site."""
        return Side.of(self.layout, self.groups, site, label, over)


def compared_runs(a: Path, b: Path, *, over: Seeds = "token_seeds", metrics: Sequence[str] = ()) -> Compared:
    """Two runs: every method that both have, site by site, under the labels that they have in common.

    Args:
        a: Folder of run A.
        b: Folder of run B.
        over: What differences are paired over: "token_seeds" or "init_seeds".
        metrics: The metrics to compare; none compares all.

    Raises:
        UsageError: A folder holds no run or no records, nothing is in both, or a metric may not be compared.
    """
    try:
        one, other = _Run.at(a, "A"), _Run.at(b, "B")
    except FolderError as error:
        raise UsageError(f"{error.args[0]}; two methods of one run need --run DIR") from error
    there = {(site.label, label) for site, label in other.layout.rows()}
    places = [(site.label, label) for site, label in one.layout.rows() if (site.label, label) in there]
    if not places:
        raise UsageError(
            f"A, B: {a} and {b} have no method at one site in common, by their labels; expected some; compare two "
            "methods of one run with `eludebench compare LABEL LABEL --run DIR`"
        )
    pairs = [(one.side(*place, over), other.side(*place, over)) for place in places]
    warnings = [*_unlike_plans(one, other, over), *unlike(pairs, same_methods=True)]
    return _compared(str(a), str(b), pairs, warnings, metrics, are_runs=True)


def compared_methods(
    folder: Path, a: str, b: str, *, over: Seeds = "token_seeds", metrics: Sequence[str] = ()
) -> Compared:
    """Two methods of one run, at every site that has both, or where they are said to be.

    Args:
        folder: The run.
        a: Label of method A, or SITE/LABEL.
        b: The same of method B.
        over: What differences are paired over: "token_seeds" or "init_seeds".
        metrics: The metrics to compare; none compares all.

    Raises:
        UsageError: The folder holds no run, or a method is not in it.
    """
    run = _Run.at(folder, "--run")
    there = {(site.label, label) for site, label in run.layout.rows()}
    chosen = [_meant(argument, text, there) for argument, text in (("A", a), ("B", b))]
    (site_a, label_a), (site_b, label_b) = chosen
    sites = [site.label for site in run.layout.sites]
    if site_a is None and site_b is None:
        places = [(site, site) for site in sites if {(site, label_a), (site, label_b)} <= there]
    else:
        places = [(site_a or site_b or "", site_b or site_a or "")]
    pairs = [(run.side(one, label_a, over), run.side(other, label_b, over)) for one, other in places]
    if not places or not all({(x.site, x.label), (y.site, y.label)} <= there for x, y in pairs):
        raise UsageError(
            f"A, B: got {a!r} and {b!r}, which are at no site together; expected two methods of one site, or "
            f"SITE/LABEL twice; see `eludebench status --run {folder}`"
        )
    return _compared(a, b, pairs, unlike(pairs, same_methods=False), metrics, are_runs=False)


def _compared(
    a: str, b: str, pairs: Pairs, warnings: Sequence[str], metrics: Sequence[str], *, are_runs: bool
) -> Compared:
    """The differences of all pairs, of all metrics or of some.

    Raises:
        UsageError: A metric is not there, or one that was asked for by name may not be compared.
    """
    measured = [
        dict.fromkeys(metric for pair in pairs for kind in pair[at].cells for metric in pair[at].metrics(kind))
        for at in (0, 1)
    ]
    for name, own, others in (("A", *measured), ("B", *reversed(measured))):
        alone = [metric for metric in own if metric not in others]
        warnings = [*warnings, f"measured in {name} alone: {', '.join(alone)}"] if alone else warnings
    names = measured[0].keys() & measured[1].keys()
    found = [one for pair in pairs for one in differences(*pair) if one.metric in names]
    for metric in metrics:
        if metric not in names:
            near = get_close_matches(metric, sorted(names), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(sorted(names))}"
            raise UsageError(f"--metric: got {metric!r}; expected a metric of both sides; {hint}")
    found = [one for one in found if not metrics or one.metric in metrics]
    refused = [one for one in found if metrics and one.is_refused]
    if refused:
        lines = [f"--metric: {one.metric} at {one.site}: {one.reason}" for one in refused]
        raise UsageError("\n".join(dict.fromkeys(f"{line}; expected one pool; leave it out" for line in lines)))
    directions = {row.name: row.direction for row in (*ROWS.values(), *rows_for("llm"), *rows_for("proxy"))}
    return Compared(a, b, warnings, found, sameness(pairs) if are_runs else None, directions)


def _meant(argument: str, text: str, there: set[tuple[str, str]]) -> tuple[str | None, str]:
    """Site and label of a method as it was written; no site where only the label was.

    Raises:
        UsageError: There is no such method.
    """
    labels = {label for _, label in there}
    if text in labels:
        return None, text
    places = {f"{site}/{label}": (site, label) for site, label in there}
    if text in places:
        return places[text]
    known = sorted({*labels, *places})
    near = get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(sorted(labels))}"
    raise UsageError(f"{argument}: got {text!r}; expected the label of a method, or SITE/LABEL; {hint}")


def _unlike_plans(one: _Run, other: _Run, over: Seeds) -> list[str]:
    """What the plans of two runs say that is not the same."""
    seeds = [", ".join(map(str, run.plan[over])) for run in (one, other)]
    lines = []
    changes = [str(Changes.kept_in(run.plan)) for run in (one, other)]
    if changes[0] != changes[1]:
        lines.append(f"changes of the suite: {changes[0]} in A, {changes[1]} in B")
    if seeds[0] != seeds[1]:
        lines.append(f"{over.replace('_', ' ')}: {seeds[0]} in A, {seeds[1]} in B; what both have is compared")
    contents = [{site["label"]: site.get("content", ABSENT) for site in run.plan["sites"]} for run in (one, other)]
    lines += [
        f"{site}: hash of the list of images: {was[:12]} in A, {contents[1][site][:12]} in B"
        for site, was in contents[0].items()
        if site in contents[1] and was != contents[1][site]
    ]
    rows = [[f"{site.label}/{label}" for site, label in run.layout.rows()] for run in (one, other)]
    for name, own, others in (("A", rows[0], rows[1]), ("B", rows[1], rows[0])):
        alone = [place for place in own if place not in others]
        if alone:
            lines.append(f"in {name} alone: {', '.join(alone)}")
    return lines

"""Charts of what panels of judges said: win rates, who won against whom, how the judges vote and agree."""

from collections.abc import Iterable
from typing import Final

from results.charted_paper import SAYS, place_of, printed
from results.charts import Axis, Chart, Matrix, Number, Row, Rows
from results.layout import PANELS, Column, Layout, Site
from results.material import (
    PUBLISHED,
    Gaps,
    Material,
    NothingToDrawError,
    axis_of,
    bars,
    chart_of,
    kind_of,
    labels_at,
    number_of,
    sites_of,
    summaries_of,
)
from results.panels import Finding, Share
from results.specs import PROXY_VERDICTS, VERDICTS
from results.summaries import Summaries

KINDS: Final = {"llm_panel": "LLM panel", "proxy_panel": "proxy panel"}
_JUDGE: Final = "`eludebench judge run SUITE --out DIR` first"


def forest(material: Material) -> Chart:
    """Win rates with 95 % intervals, best on top, with ranks and their intervals; a panel for each kind of judges."""
    layout = material.run
    gaps = Gaps()
    panels: list[Rows] = []
    used: list[Column] = []
    for kind, spec in zip(PANELS, (VERDICTS, PROXY_VERDICTS), strict=True):
        rank, rate = spec.columns[:2]
        judged = {site for each, site, _ in layout.verdicts if each == kind}
        here = [site for site in sites_of(layout) if site.label in judged]
        summaries = summaries_of((rank, rate), material.records, layout)
        panels += [_forest_at(site, kind, (rank, rate), summaries, layout, gaps, material) for site in here]
        used += [rate] if here else []
    if not any(row.numbers[0] is not None for panel in panels for row in panel.rows):
        raise NothingToDrawError(f"figure: got a run that nobody judged; expected win rates; {_JUDGE}")
    notes = [*bars(used, layout), *([SAYS] if material.beside else []), *gaps.notes()]
    letters = any(finding.groups for finding in material.findings)
    says = "Right: rank with its 95 % interval" + (
        "; methods that share a letter cannot be separated (paired bootstrap, Holm, 5 %)." if letters else "."
    )
    shows = "Share of decided presentations that each method won, best on top; the line is 50 %."
    return chart_of("Win rates", shows, panels, layout, [says, *notes])


def _forest_at(
    site: Site,
    kind: str,
    columns: tuple[Column, Column],
    summaries: Summaries,
    layout: Layout,
    gaps: Gaps,
    material: Material,
) -> Rows:
    """The win rates of one site by one kind of panel."""
    rank, rate = columns
    groups = {
        label: letters
        for one in material.findings
        if (one.site, one.kind) == (site.label, kind)
        for label, letters in zip(one.labels, one.groups, strict=True)
    }
    place = place_of(site.label) if material.beside == PUBLISHED and kind == "llm_panel" else None
    paper = printed(rate.metric, place) if place else {}
    rows: list[tuple[float, Row]] = []
    for label in labels_at(site, layout):
        number, ranked = number_of(summaries[site.label, label, rate]), summaries[site.label, label, rank]
        gaps.note(summaries[site.label, label, rate], site.label, label)
        words = ""
        if ranked.mean is not None:
            ends = "" if ranked.low is None or ranked.high is None else f" [{ranked.low:.0f}–{ranked.high:.0f}]"
            words = " ".join(filter(None, [f"{ranked.mean:.0f}{ends}", groups.get(label, "")]))
        series = (number, paper.get(label)) if paper else (number,)
        rows.append((-number.value if number else float("inf"), Row(label, kind_of(label, layout), series, words)))
    axis = Axis(axis_of(rate).label, "up", limits=(0.0, 100.0), line=50.0, line_says="50 %")
    ordered = tuple(row for _, row in sorted(rows, key=lambda each: each[0]))
    return Rows(f"{site.label}: {KINDS[kind]}", axis, ordered, ("here", "paper") if paper else ("",), "rank")


def wins(material: Material) -> Chart:
    """Who won how often against whom, a matrix for each panel and site."""
    findings = _found(material)
    matrices = [Matrix(_titled(one), one.labels, one.wins) for one in findings]
    gaps = Gaps()
    for one, matrix in zip(findings, matrices, strict=True):
        for at, name in enumerate(matrix.names):
            for to in range(at + 1, len(matrix.names)):
                if not matrix.decided(at, to):
                    gaps.add(_titled(one), f"{name} against {matrix.names[to]}", "no decided presentation")
    shows = "Share of decided presentations that the row won against the column, in %; below it how many were decided."
    notes = ["Upper number: share, in %. Lower number: decided presentations.", *_said(findings), *gaps.notes()]
    return chart_of("Wins of the row against the column", shows, matrices, material.layout, notes)


def judges(material: Material) -> Chart:
    """How each judge votes and how far they agree: position bias, flips, kappas, flips by method."""
    findings = _found(material)
    gaps = Gaps()
    panels: list[Rows] = []
    for one in findings:
        name = _titled(one)
        first = Axis("votes for the first grid (%)", line=50.0, line_says="no bias", limits=(0.0, 100.0))
        flips = Axis("one place named twice (% of unit pairs)", "down", limits=_up_to([v.flips for v in one.voters]))
        kappa = Axis("agreement (1: always)", "up", line=0.0, line_says="by chance")
        changed = Axis("winner changes with the order (% of unit pairs)", limits=_up_to(one.flips))
        pairs = [(f"{a}, {b}: kappa", number) for a, b, number in one.kappas]
        panels += [
            _shares(name, "position", first, [(each.judge, each.first) for each in one.voters], gaps),
            _shares(name, "flips of judges", flips, [(each.judge, each.flips) for each in one.voters], gaps),
            _shares(name, "agreement", kappa, [*pairs, ("all judges: alpha", one.alpha)], gaps),
            _shares(name, "flips of methods", changed, list(zip(one.labels, one.flips, strict=True)), gaps),
        ]
    shows = (
        "For each judge the share of votes for the first grid and how often it named one place twice; "
        "Cohen's kappa of each two judges and Krippendorff's alpha of all; how often the winner of a unit pair changes."
    )
    notes = ["Bars: 95 % intervals.", *_said(findings), *gaps.notes()]
    return chart_of("Judges", shows, panels, material.layout, notes)


def _shares(name: str, what: str, axis: Axis, shares: list[tuple[str, Share]], gaps: Gaps) -> Rows:
    """A list of shares with their intervals."""
    rows = []
    for label, share in shares:
        if share.value is None:
            gaps.add(name, f"{what} of {label}", share.reason or "no value")
        number = None if share.value is None else Number(share.value, share.low, share.high)
        rows.append(Row(label, "method", (number,)))
    return Rows(f"{name}: {what}", axis, tuple(rows))


def _up_to(shares: Iterable[Share]) -> tuple[float, float]:
    """From nothing to what is there, five percent at least."""
    ends = [end for one in shares for end in (one.value, one.high) if end is not None]
    return 0.0, max([5.0, *(1.05 * end for end in ends)])


def _found(material: Material) -> tuple[Finding, ...]:
    """What panels found."""
    if not material.findings:
        raise NothingToDrawError(
            f"figure: got a run without the replies of judges; expected its folder `judging`; {_JUDGE}"
        )
    return material.findings


def _titled(one: Finding) -> str:
    """Site and panel."""
    return f"{one.site}: {one.title}"


def _said(findings: tuple[Finding, ...]) -> list[str]:
    """What a reader of the judges' numbers has to be told, with where it holds."""
    said: dict[str, list[str]] = {}
    for one in findings:
        for warning in one.warnings:
            said.setdefault(warning, []).append(one.site)
    return [f"Warning: {', '.join(dict.fromkeys(sites))}: {what}." for what, sites in said.items()]

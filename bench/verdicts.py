"""What a panel found of each method, as values with their rows: the numbers of the tables `verdicts`, `proxy_verdicts`.

Numbers of a panel of vision-language models are named `llm_...`, those of any other `proxy_...`, so that the one can
never stand in a column of the other. A win rate is relative to the methods that it was measured against: the pool's
identity is in the notes of every record.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from metrics.catalogue import MetricRow, Value

if TYPE_CHECKING:
    from judges.drawn import MethodNote
    from judges.estimates import Estimate
    from judges.ranking import Ranking, Standing

_BETTER: Final[dict[str, tuple[str, Literal["up", "down", "none"], str]]] = {
    "rank": ("1", "down", "1 and how many methods of the pool have a higher win rate; in brackets its 95 % interval"),
    "win_rate": ("%", "up", "decided presentations that the method won, of its own, all token seeds together"),
    "win_rate_consistent": ("%", "up", "the same, of unit pairs of which one side won both orders"),
    "flip_rate": ("%", "none", "unit pairs whose winner changed with the order of the grids"),
    "win_rate_half": ("%", "up", "win rate where an undecided presentation is half a win"),
    "p_best": ("%", "none", "resamples in which no method had a higher win rate"),
    "strength": ("logits", "up", "Bradley-Terry strength, mean 0 over the pool"),
    "ineligible_share": ("%", "none", "units that fewer than nine images drive, and that meet nobody"),
}


def rows_for(prefix: str) -> tuple[MetricRow, ...]:
    """The rows of a panel's values: unit, direction and meaning."""
    return tuple(
        MetricRow(
            name=f"{prefix}_{name}",
            unit=unit,
            direction=direction,
            bounds=(0.0, 100.0) if unit == "%" else (None, None),
            needs=("verdicts",),
            reference="Bağcı et al. 2026, appendix B.1",
            summary=summary,
            computed_by="bench.verdicts:values_of",
            by_default=False,
        )
        for name, (unit, direction, summary) in _BETTER.items()
    )


def values_of(
    ranking: "Ranking", notes: Sequence["MethodNote"], prefix: str, caveat: str | None
) -> dict[str, dict[str, Value]]:
    """The values of every method by its id, named with the prefix; the caveat stands beside rank and win rate."""
    over = "unit pairs" if ranking.settings.bootstrap == "unit_pair" else "presentations"
    found: dict[str, dict[str, Value]] = {}
    standings = {one.method: one for one in ranking.standings}
    for method in dict.fromkeys(note.method for note in notes):
        own = standing_values(standings[method], over) if method in standings else absent()
        for name in ("rank", "win_rate") if caveat else ():
            own[name] = replace(own[name], reason="; ".join(filter(None, (own[name].reason, caveat))))
        own["ineligible_share"] = share_of([note for note in notes if note.method == method])
        found[method] = {f"{prefix}_{name}": value for name, value in own.items()}
    return found


def absent() -> dict[str, Value]:
    """The values of a method that met nobody."""
    return dict.fromkeys(_BETTER, Value.null("no unit that nine images drive"))


def standing_values(one: "Standing", over: str) -> dict[str, Value]:
    """The values of one method, without a prefix."""
    remark = one.win_rate.reason or None
    counts: dict[str, Any] = {"n": one.decided, "n_excluded": one.undecided}
    found = {
        "win_rate": value_of(one.win_rate, over, **counts),
        "win_rate_consistent": value_of(one.swap_consistent, "unit pairs", n=one.n_won_in_both, n_excluded=0),
        "flip_rate": value_of(one.flip_rate, "unit pairs", n=one.n_decided_in_both, n_excluded=0),
        "strength": value_of(one.strength, "unit pairs", **counts),
    }
    ends = (one.rank_low, one.rank_high)
    if one.rank is None or one.p_best is None:
        found |= dict.fromkeys(("rank", "p_best"), Value.null(remark or "no decided presentation", **counts))
    else:
        low, high = (None if end is None else float(end) for end in ends)
        found["rank"] = Value(float(one.rank), low, high, "bootstrap over unit pairs", **counts, reason=remark)
        found["p_best"] = Value(one.p_best, None, None, "share of resamples", **counts)
    half = one.rate_if_half
    exact = Value.exact(half, n=one.decided + one.undecided) if half is not None else Value.null("no presentation")
    return found | {"win_rate_half": exact}


def value_of(estimate: "Estimate", over: str, *, n: int, n_excluded: int) -> Value:
    """An estimate as a value."""
    if estimate.value is None:
        return Value.null(estimate.reason, n=n, n_excluded=n_excluded)
    ends = (estimate.low, estimate.high)
    interval = "none" if estimate.low is None else f"bootstrap over {over}"
    return Value(estimate.value, *ends, interval, n, n_excluded, estimate.reason or None)


def share_of(notes: Sequence["MethodNote"]) -> Value:
    """The share of a method's units that meet nobody, over all token seeds; counted, so without an interval."""
    units, ineligible = (sum(getattr(note, name) for note in notes) for name in ("units", "ineligible"))
    return Value.exact(100 * ineligible / units, n=units) if units else Value.null("no units")


def captioned(kind: str, judges: Sequence[str], unit_pairs: int, seeds: str) -> str:
    """What the panel was, for the caption of its columns."""
    who = "Judged by vision-language models" if kind == "llm_panel" else "Judged by a proxy panel"
    pairs = f"up to {unit_pairs} unit pairs of every two methods and token seed, in both orders"
    return f"{who} ({', '.join(judges)}): {pairs}, {seeds}; a rate is relative to the methods of the site."

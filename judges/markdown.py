"""A report as Markdown: warnings first, then methods, their win matrix, and the judges.

Rates are printed as in Table 3 of Bağcı et al. 2026: two decimals, and one in the brackets of the 95 % interval.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from judges.agreement import RUNGS
from judges.calibration import LARGEST_BIAS, LEAST_RIGHT
from judges.drawn import PairNote
from judges.estimates import Estimate
from judges.ranking import Standing
from judges.report import Report, warnings

ABSENT: Final = "–"
Row = Sequence[str]


def report_markdown(found: Report) -> str:
    """The report as text with tables."""
    parts = [f"# {_name(found)}: {found.title}" if not found.panel else f"# Judged by a {found.panel}: {found.title}"]
    said = warnings(found)
    if said:
        parts.append("\n".join(f"- **Warning:** {one}." for one in said))
    parts += [_summary(found), *_standings(found), *_matrix(found), *_judges(found), *_calibrations(found)]
    parts += [*_agreement(found), *_without(found), *_draw(found)]
    return "\n\n".join(parts) + "\n"


def letters(groups: Iterable[int]) -> str:
    """Group numbers as letters, a for the best; numbers once there are more than letters."""
    return " ".join(chr(ord("a") + number - 1) if number <= 26 else str(number) for number in groups)


def shown(number: Estimate, decimals: int = 2, *, ends: int = 1, signed: bool = False) -> str:
    """A number with its interval; `decimals` are the number's, `ends` those of the interval."""
    if number.value is None:
        return ABSENT
    sign = "+" if signed else ""
    text = f"{number.value:{sign}z.{decimals}f}"
    if number.low is None or number.high is None:
        return text
    return f"{text} [{number.low:{sign}z.{ends}f}, {number.high:{sign}z.{ends}f}]"


def _name(found: Report) -> str:
    return found.panel or "LLM Rank"


def _heading(found: Report, text: str) -> str:
    return f"## {text} ({found.panel})" if found.panel else f"## {text}"


def _table(found: Report, columns: Row, rows: Iterable[Row]) -> str:
    """A table whose first column says what kind of panel it is from."""
    heads = [f"{columns[0]} ({found.panel})" if found.panel else columns[0], *columns[1:]]
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _summary(found: Report) -> str:
    """What was counted, and how."""
    ranking = found.ranking
    n_undecided = sum(ranking.undecided.values())
    reasons = ", ".join(f"{count} with {reason}" for reason, count in ranking.undecided.items() if count)
    how = "half a win for each side" if ranking.settings.undecided == "half" else "left out"
    resampled = "unit pairs" if ranking.settings.bootstrap == "unit_pair" else "single presentations"
    return (
        f"{ranking.n_presentations} presentations, {ranking.seeds}; {n_undecided} undecided"
        f"{f' ({reasons})' if reasons else ''}, {how}. "
        f"95 % intervals from {ranking.settings.n_resamples} resamples of {resampled}."
    )


def _standings(found: Report) -> list[str]:
    """The methods."""
    seeds = found.ranking.token_seeds
    columns = [
        "method", "rank" if found.panel else "LLM Rank", "rank, 95 %", "win rate, %", "wins of decided", "undecided",
        "group", "best, %", "strength", "swap-consistent, %", "flips, %", "undecided = ½, %",
        *(f"seed {seed}, %" for seed in seeds),
    ]  # fmt: skip

    def row(one: Standing) -> Row:
        return [
            found.label(one.method),
            _whole(one.rank),
            ABSENT if one.rank is None else f"{one.rank_low} to {one.rank_high}",
            shown(one.win_rate),
            f"{one.wins} / {one.decided}",
            str(one.undecided),
            letters(one.groups) or ABSENT,
            _fixed(one.p_best, 1),
            shown(one.strength, ends=2),
            shown(one.swap_consistent),
            shown(one.flip_rate, 1),
            f"{_fixed(one.rate_if_half, 2)} (rank {_whole(one.rank_if_half)})",
            *(_fixed(one.seed_rates[seed], 2) for seed in seeds),
        ]

    kinds: list[tuple[str, Callable[[Standing], Estimate]]] = [
        ("win rate", lambda one: one.win_rate),
        ("strength", lambda one: one.strength),
        ("swap-consistent", lambda one: one.swap_consistent),
        ("flips", lambda one: one.flip_rate),
    ]
    notes = [
        f"- {found.label(one.method)}, {what}: {of(one).reason}."
        for one in found.ranking.standings
        for what, of in kinds
        if of(one).reason
    ]
    note = (
        "Methods that share a group letter cannot be separated (paired bootstrap over unit pairs, Holm, 5 %). "
        "Strengths are Bradley-Terry's, in natural-log odds. Rates are relative to this pool."
    )
    parts = [_heading(found, "Methods"), _table(found, columns, map(row, found.ranking.standings)), note]
    return [*parts, "\n".join(notes)] if notes else parts


def _matrix(found: Report) -> list[str]:
    """Who won how often against whom."""
    ranking = found.ranking
    names = [found.label(one.method) for one in ranking.standings]
    rows = [
        [name, *(ABSENT if not ranking.met[m, k] else str(ranking.wins[m, k]) for k in range(len(names)))]
        for m, name in enumerate(names)
    ]
    return [_heading(found, "Wins of the row against the column"), _table(found, ["method", *names], rows)]


def _judges(found: Report) -> list[str]:
    """How each judge votes."""
    columns = ["judge", "kind", "no valid vote, %", *(f"read: {rung}" for rung in RUNGS), "A twice", "B twice"]
    columns += ["sign test p", "position bias, points to A", "gate"]
    gates = {one.judge: one.gate.passed for one in found.calibrations}
    rows = [
        [
            voter.judge,
            found.kinds[voter.judge],
            shown(voter.invalid),
            *(str(found.rungs[voter.judge][rung]) for rung in RUNGS),
            str(voter.n_first),
            str(voter.n_second),
            ABSENT if voter.position_p is None else f"{voter.position_p:.2g}",
            shown(voter.position_bias, signed=True),
            {True: "passed", False: "failed", None: ABSENT}[gates[voter.judge]],
        ]
        for voter in found.agreement.voters
    ]
    return [_heading(found, "Judges"), _table(found, columns, rows)]


def _calibrations(found: Report) -> list[str]:
    """The judges on planted pairs."""
    rows = [
        [
            one.judge,
            rung.name,
            str(rung.n),
            str(rung.n_invalid),
            shown(rung.right, 1),
            shown(rung.right_in_both, 1),
        ]
        for one in found.calibrations
        for rung in one.rungs
    ]
    gates = [
        f"- {one.judge}: null bias {shown(one.null_bias, signed=True)} points to A on {one.n_null} null presentations; "
        f"gate {({True: 'passed', False: 'failed', None: 'not told'})[one.gate.passed]}: {one.gate.reason}."
        for one in found.calibrations
    ]
    parts = [_heading(found, "Planted pairs")]
    if rows:
        columns = ["judge", "planted pair", "answers", "invalid", "right, %", "right in both orders, %"]
        parts.append(_table(found, columns, rows))
    note = (
        f"The gate: at least {LEAST_RIGHT:g} % right on the easiest rung, and a null bias whose 95 % interval does not "
        f"lie wholly beyond {LARGEST_BIAS:g} points."
    )
    return [*parts, "\n".join(gates), note]


def _agreement(found: Report) -> list[str]:
    """How far the judges agree."""
    lines = [f"- Cohen's kappa, {a} and {b}: {_told(kappa)}" for (a, b), kappa in found.agreement.kappas.items()]
    lines += [
        f"- Krippendorff's alpha of the panel: {_told(found.agreement.alpha)}",
        f"- Effective number of judges by votes (at least): {_told(found.agreement.effective_judges)}",
        f"- Effective number of judges by errors on planted pairs: {_told(found.effective_by_errors)}",
    ]
    return [_heading(found, "Agreement"), "\n".join(lines)]


def _without(found: Report) -> list[str]:
    """Ranks by the panel without one judge."""
    voters = found.agreement.voters
    if len(voters) < 2:
        return []
    rows = [
        [found.label(one.method), _whole(one.rank), *(_whole(voter.ranks_without[one.method]) for voter in voters)]
        for one in found.ranking.standings
    ]
    columns = ["method", "rank", *(f"without {voter.judge}" for voter in voters)]
    return [_heading(found, "Ranks without one judge"), _table(found, columns, rows)]


def _draw(found: Report) -> list[str]:
    """What became of the draw, where it is not all that was asked for."""
    if found.notes is None:
        return []
    few: dict[tuple[int, int, str], list[PairNote]] = {}
    equal: Counter[tuple[str, str]] = Counter()
    for one in found.notes.pairs:
        if one.drawn < one.asked:
            few.setdefault((one.drawn, one.asked, one.reason), []).append(one)
        if one.null:
            equal[one.methods] += one.null
    lines = [
        f"- {drawn} of {asked} unit pairs ({reason}; token seeds "
        f"{', '.join(map(str, sorted({one.token_seed for one in group})))}): "
        f"{', '.join(_against(found, methods) for methods in dict.fromkeys(one.methods for one in group))}."
        for (drawn, asked, reason), group in few.items()
    ]
    if equal:
        counts = ", ".join(f"{_against(found, methods)} {count}" for methods, count in equal.items())
        lines.append(f"- Unit pairs with equal grids, kept as null pairs: {counts}.")
    lines += [f"- {reason}." for reason in found.notes.planted]
    return [_heading(found, "What could not be drawn"), "\n".join(lines)] if lines else []


def _against(found: Report, methods: tuple[str, str]) -> str:
    return " against ".join(map(found.label, methods))


def _told(number: Estimate) -> str:
    return shown(number, ends=2) + (f" ({number.reason})" if number.reason else "")


def _fixed(number: float | None, decimals: int) -> str:
    return ABSENT if number is None else f"{number:.{decimals}f}"


def _whole(number: int | None) -> str:
    return ABSENT if number is None else str(number)

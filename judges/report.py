"""All that is said about one pool and one panel: as data, as JSON and as warnings.

The paper's name for the rank is kept for panels of vision-language models alone. Any other is a `proxy panel` in every
heading and table, or a `scripted panel` where a script is on it and no proxy. `judges.markdown`
shows what is here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

import numpy as np

from judges.agreement import Agreement, agreement, rungs
from judges.calibration import LARGEST_BIAS, Calibration, calibrate, effective_judges
from judges.drawn import Notes
from judges.estimates import Estimate
from judges.protocol import Presentation, Settings, Verdict
from judges.ranking import SEEDS_OF_THE_PROTOCOL, Ranking, rank
from judges.votes import Votes

MANY_INVALID: Final = 5.0
"""Presentations without a valid vote of a judge, in %, above which there is a warning."""


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say.

    Attributes:
        title: What was ranked: backbone, site, expansion.
        kinds: The kind of each judge, in the order of the panel; a plugin may have one of its own.
        labels: What people call each method, by id; ids stand for those that are missing.
        ranking: The methods.
        agreement: The judges on real presentations.
        calibrations: The judges on planted pairs.
        effective_by_errors: Independent judges that the panel is worth, by their errors on planted pairs.
        rungs: How the replies of each judge were read.
        accepted: Judges that are used whatever the gate says.
        notes: What became of the draw; None where nobody told.
    """

    title: str
    kinds: Mapping[str, str]
    labels: Mapping[str, str]
    ranking: Ranking
    agreement: Agreement
    calibrations: tuple[Calibration, ...]
    effective_by_errors: Estimate
    rungs: Mapping[str, Mapping[str, int]]
    accepted: frozenset[str]
    notes: Notes | None = None

    @property
    def panel(self) -> str:
        """What every heading and table says of the panel; empty where all are vision-language models."""
        found = set(self.kinds.values())
        if found <= {"vlm"}:
            return ""
        return "scripted panel" if "scripted" in found and "proxy" not in found else "proxy panel"

    def label(self, method: str) -> str:
        """What people call a method."""
        return self.labels.get(method, method)


def report(
    presentations: Sequence[Presentation],
    verdicts: Mapping[str, Mapping[str, Verdict]],
    settings: Settings,
    *,
    title: str,
    kinds: Mapping[str, str],
    labels: Mapping[str, str],
    easiest: str,
    accepted: Collection[str] = (),
    notes: Notes | None = None,
) -> Report:
    """All that follows from the verdicts on the presentations of one site, planted ones included.

    Args:
        presentations: All that were to be asked.
        verdicts: Of each judge of the panel, by presentation id.
        settings: How methods are compared.
        title: What is ranked.
        kinds: The kind of each judge.
        labels: What people call each method, by id.
        easiest: Name of the rung of planted pairs that the gate looks at.
        accepted: Judges that are used whatever the gate says.
        notes: What became of the draw, as the manifest has it.

    Raises:
        ValueError: A judge without a kind, or presentations that do not fit together.
    """
    unknown = sorted(set(verdicts) - set(kinds))
    if unknown:
        raise ValueError(
            f"kinds: got none for {', '.join(unknown)}; expected the kind of every judge; say which kind it is"
        )
    votes = Votes.of(presentations, verdicts)
    return Report(
        title,
        {judge: kinds[judge] for judge in verdicts},
        dict(labels),
        rank(votes, settings),
        agreement(votes, settings),
        calibrate(presentations, verdicts, easiest),
        effective_judges(presentations, verdicts),
        rungs(presentations, verdicts),
        frozenset(accepted),
        notes,
    )


def warnings(found: Report) -> tuple[str, ...]:
    """What a reader must know before the numbers, the gravest first."""
    ranking = found.ranking
    said = []
    if found.panel:
        said.append(f"{found.panel}: made without a full panel of vision-language models; not to be set beside one")
    for one in found.calibrations:
        if one.gate.passed is False:
            ending = "accepted by name" if one.judge in found.accepted else "not accepted by name"
            said.append(f"judge {one.judge} fails the gate, {ending}: {one.gate.reason}")
        elif one.gate.passed is None:
            said.append(f"judge {one.judge} is not calibrated: {one.gate.reason}")
    for judge, counts in found.rungs.items():
        if counts["unanswered"]:
            said.append(f"judge {judge} has not answered {counts['unanswered']} of {ranking.n_presentations}")
    for voter in found.agreement.voters:
        if (voter.invalid.value or 0) > MANY_INVALID:
            said.append(f"judge {voter.judge} has no valid vote on {voter.invalid.value:.1f} %")
        if abs(voter.position_bias.value or 0) > LARGEST_BIAS:
            said.append(f"judge {voter.judge} leans to a position: {voter.position_bias.value:+.1f} points towards A")
    if len(found.kinds) == 1:
        said.append("a panel of one judge: its vote decides every presentation")
    if len(ranking.token_seeds) != SEEDS_OF_THE_PROTOCOL:
        said.append(f"{ranking.seeds}: the protocol pools {SEEDS_OF_THE_PROTOCOL} token seeds")
    if ranking.settings.bootstrap == "presentation":
        said.append("intervals as in the paper: they take the two orders of a unit pair for independent, too narrow")
    return tuple(said)


def as_json(found: Report) -> dict[str, Any]:
    """Everything in the report as JSON values: null where a number is missing, with its reason beside it."""
    plain: dict[str, Any] = _plain(found)
    plain["panel"] = found.panel or "vlm panel"
    plain["warnings"] = list(warnings(found))
    plain["ranking"]["seeds"] = found.ranking.seeds
    plain["agreement"]["kappas"] = [
        {"judges": list(pair), **_plain(kappa)} for pair, kappa in found.agreement.kappas.items()
    ]
    return plain


def _plain(value: Any) -> Any:
    """A value of this package as JSON values."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.tolist() if isinstance(value, np.ndarray) else value

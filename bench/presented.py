"""Pairs of grids that were judged, with what every judge said of them: Figure 6 of the paper, as data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from bench.conclusions import panels_of, sites_of
from bench.judged import REPLIES, Context, counted
from judges.manifest import Manifest, load
from judges.planted import SIDES
from judges.protocol import Choice, Presentation, Verdict
from judges.replies import stored_identity
from judges.votes import Votes, consensus
from results.explored import Judged, Reply, Shown

CHOSEN: Final[Mapping[int, str | None]] = {1: "A", -1: "B", 0: None}
NAMED: Final[Mapping[Choice, str | None]] = {"A": "A", "B": "B", "none": None}


@dataclass(frozen=True, eq=False)
class Heard:
    """What one panel judged at one site.

    Attributes:
        manifest: What it was asked.
        context: What the run says of it.
        kind: "llm_panel" or "proxy_panel".
        said: The text of each judge on each presentation and what it says, by judge and presentation id.
    """

    manifest: Manifest
    context: Context
    kind: str
    said: Mapping[str, Mapping[str, tuple[str, Verdict]]]

    @classmethod
    def at(cls, where: Path) -> "Heard":
        """What is in the folder of a panel's work at one site.

        Raises:
            ManifestError, UsageError, RepliesError: It cannot be read.
        """
        manifest, context, replies = load(where), Context.load(where), where / REPLIES
        kinds = {stored_identity(replies, name).get("kind", kind) for name, kind in context.judges.items()}
        said = {name: counted(replies, name, reask=manifest.settings.reask) for name in context.judges}
        return cls(manifest, context, "llm_panel" if kinds == {"vlm"} else "proxy_panel", said)

    @cached_property
    def choices(self) -> dict[str, str | None]:
        """What the panel as a whole chose, by presentation; of planted pairs too, which the ranking leaves out."""
        every = [
            replace(one, rung="", methods=("second", "first") if one.order else ("first", "second"))
            if one.rung
            else one
            for one in self.manifest.presentations
        ]
        if not (every and self.said):
            return {}
        verdicts = {name: {key: verdict for key, (_, verdict) in own.items()} for name, own in self.said.items()}
        ordered = sorted(every, key=lambda one: (one.token_seed, one.comparison, one.order, one.id))  # as votes stand
        return {
            one.id: CHOSEN[int(choice)]
            for one, choice in zip(ordered, consensus(Votes.of(every, verdicts)), strict=True)
        }

    @property
    def comparisons(self) -> list[tuple[Presentation, ...]]:
        """The presentations that somebody answered, both orders of a pair together, in the order of the draw."""
        answered = {key for own in self.said.values() for key in own}
        found: dict[str, list[Presentation]] = {}
        for one in self.manifest.presentations:
            if one.id in answered:
                found.setdefault(one.comparison, []).append(one)
        return [tuple(both) for both in found.values()]

    def judged(self, one: Presentation) -> Judged:
        """A presentation with its replies."""
        labels, recipes = dict(self.manifest.pool), self.manifest.recipes
        planted = SIDES.get(one.rung, (one.rung, one.rung))
        sides = [
            Shown(
                label=planted[side ^ one.order] if one.rung else labels.get(one.methods[side], one.methods[side]),
                atom=None if one.rung else one.units[side],
                images=tuple(recipes.get(one.grids[side], ())),
            )
            for side in (0, 1)
        ]
        replies = [reply_of(judge, *own[one.id]) for judge, own in self.said.items() if one.id in own]
        return Judged(
            site=self.context.site,
            panel=self.context.panel,
            kind=self.kind,
            id=one.id,
            token_seed=one.token_seed,
            first=sides[0],
            second=sides[1],
            replies=tuple(replies),
            consensus=self.choices.get(one.id),
            rung=one.rung,
            right=NAMED[one.expected],
        )


def reply_of(judge: str, text: str, verdict: Verdict) -> Reply:
    """A reply with its reasoning, where it is the JSON that was asked for; a text is a text, whatever is in it."""
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        found = None
    told = found if isinstance(found, dict) else {}
    a, b = (one if isinstance(one := told.get(key), str) else "" for key in ("reasoning_a", "reasoning_b"))
    return Reply(judge, NAMED[verdict.choice], a, b, text)


def heard_in(folder: Path) -> tuple[list[Heard], list[str]]:
    """What every panel judged in a run, and what of it cannot be read."""
    found, lost = [], []
    for panel in panels_of(folder):
        for where in sites_of(folder, panel):
            try:
                found.append(Heard.at(where))
            except Exception as error:  # whatever is wrong with one, the others are shown
                lost.append(f"panel {panel} at {where.name}: its files cannot be read ({type(error).__name__})")
    return found, lost


def pair_of(heard: Sequence[Heard], identity: str) -> tuple[Heard, Presentation] | None:
    """The presentation with this id, or with an id that begins so where only one does."""
    found = [
        (one, each) for one in heard for each in one.manifest.presentations if identity and each.id.startswith(identity)
    ]
    exact = [pair for pair in found if pair[1].id == identity]
    return exact[0] if exact else found[0] if len(found) == 1 else None

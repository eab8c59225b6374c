"""What a panel's replies come to: verdicts, ranks, the report of a site, records, and the columns of the tables.

Nothing here asks a judge, and neither the suite nor torch is needed: the folder of the run says everything. So stored
replies can be read again at any time, by a newer reader too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench import UsageError
from bench.cache import digest
from bench.findings_of_panels import finding_of
from bench.folder import LEDGER, outcomes, read_plan, write_bytes, write_plan, write_text
from bench.judged import FOLDER, REPLIES, Context, stored, verdicts_in
from bench.provenance import machine, now, provenance
from bench.verdicts import captioned, rows_for, values_of
from judges.manifest import Manifest, load
from judges.markdown import report_markdown
from judges.planted import EASIEST
from judges.protocol import Verdict
from judges.reading import READER_VERSION
from judges.replies import stored_identity
from judges.report import Report, as_json, report, warnings
from results.figures import drawn
from results.layout import Seeds
from results.ledger import Ledger
from results.records import COMPLETE, STATUS, Record

VERDICTS: Final = "verdicts.json"
FIGURES_OF_A_PANEL: Final = ("wins", "judges")
"""Those that follow from the replies alone; `eludebench figure` draws them too, beside the others of the run."""
VERSION = 1
"""Part of the identity of every panel's finding; raised when the bench itself concludes differently."""


@dataclass(frozen=True)
class Conclusion:
    """What one panel found at one site.

    Attributes:
        folder: Where its files are.
        context: What the run says of it.
        manifest: What was to be asked.
        verdicts: What each judge said, by presentation.
        identities: What each judge's replies follow from, as it said itself.
        report: All that follows from them.
    """

    folder: Path
    context: Context
    manifest: Manifest
    verdicts: Mapping[str, Mapping[str, Verdict]]
    identities: Mapping[str, Mapping[str, Any]]
    report: Report

    @property
    def kind(self) -> Seeds:
        """What kind of panel gave the replies: of vision-language models only where each of them says it is one."""
        return "llm_panel" if set(self.report.kinds.values()) == {"vlm"} else "proxy_panel"


def panels_of(folder: Path) -> list[str]:
    """The panels that a run was judged by."""
    root = folder / FOLDER
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def sites_of(folder: Path, panel: str) -> list[Path]:
    """The folders of a panel's work, one a site.

    Raises:
        UsageError: The run was not judged by it.
    """
    panel = Path(panel).stem if panel.endswith(".toml") else panel
    root = folder / FOLDER / panel
    found = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not found:
        known = ", ".join(panels_of(folder)) or "none"
        raise UsageError(
            f"--panel: got {panel!r}, which has judged nothing of {folder}; expected one of: {known}; "
            "`eludebench judge run` first"
        )
    return found


def concluded(where: Path) -> Conclusion:
    """What the stored replies of one site come to, read by the reader of this version."""
    manifest, context = load(where), Context.load(where)
    replies = where / REPLIES
    verdicts = {name: verdicts_in(replies, name, reask=manifest.settings.reask) for name in context.judges}
    identities = {name: stored_identity(replies, name) for name in context.judges}
    found = report(
        manifest.presentations,
        verdicts,
        manifest.settings,
        title=f"{context.suite}, {context.site}",
        kinds={name: identities[name].get("kind", kind) for name, kind in context.judges.items()},
        labels=dict(manifest.pool),
        easiest=EASIEST,
        accepted=context.accepted,
        notes=manifest.notes,
    )
    return Conclusion(where, context, manifest, verdicts, identities, found)


def written(one: Conclusion) -> None:
    """Write the report of a site beside its replies: `report.md`, `report.json`, and its figures as SVG and PNG."""
    write_text(one.folder / "report.md", f"{report_markdown(one.report)}\n{requests_markdown(one)}")
    said = told(one)
    write_text(one.folder / "report.json", json.dumps(said, indent=1, allow_nan=False) + "\n")
    finding = finding_of(said, one.kind)
    for name in FIGURES_OF_A_PANEL:
        for ending in ("svg", "png"):
            write_bytes(one.folder / f"{name}.{ending}", drawn(name, panels=[finding], format=ending))


def told(one: Conclusion) -> dict[str, Any]:
    """A conclusion as JSON values."""
    context = asdict(one.context)
    own = {"run": context, "identities": dict(one.identities), "requests": requests_of(one)}
    return {"pool": one.manifest.pool_id, **own, **as_json(one.report)}


def requests_of(one: Conclusion) -> dict[str, dict[str, int | None]]:
    """Of each judge how many replies there are, how many were asked for again, and the tokens of the requests.

    Tokens are null where the server does not count them.
    """
    found: dict[str, dict[str, int | None]] = {}
    for judge in one.context.judges:
        replies = [each.reply for each in stored(one.folder / REPLIES, judge)]
        counts: dict[str, int | None] = {
            "replies": len(replies),
            "asked_again": sum(reply.attempt != "first" for reply in replies),
        }
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            known = [value for reply in replies if (value := getattr(reply, name)) is not None]
            counts[name] = sum(known) if known else None
        found[judge] = counts
    return found


def requests_markdown(one: Conclusion) -> str:
    """The same as a table; what a server's caches saved is the share of prompt tokens that they held."""
    lines = ["## Requests", "", "| judge | replies | asked again | prompt tokens | of these cached | reply tokens |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for judge, counts in requests_of(one).items():
        cells = ["–" if value is None else f"{value:,}" for value in counts.values()]
        lines.append(f"| {judge} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def changes(one: Conclusion) -> dict[str, int]:
    """How many stored verdicts of each judge the present reader reads otherwise; those kept are then replaced."""
    path = one.folder / VERDICTS
    before = json.loads(path.read_text(encoding="utf-8"))["verdicts"] if path.is_file() else {}
    now_read = {judge: {key: said.choice for key, said in own.items()} for judge, own in one.verdicts.items()}
    write_text(path, json.dumps({"reader": READER_VERSION, "verdicts": now_read}) + "\n")
    return {
        judge: sum(own.get(key) != choice for key, choice in before.get(judge, {}).items())
        for judge, own in now_read.items()
    }


def identity_of(one: Conclusion, method: str) -> str:
    """Hash of what the records of a method's verdicts follow from, but for the replies themselves."""
    parts = {"judging": VERSION, "pool": one.manifest.pool_id, "site": one.context.site, "panel": one.context.panel}
    return digest({**parts, **one.manifest.fingerprints, "method": method})[:16]


def record(folder: Path, found: Sequence[Conclusion], seconds: float | None = None) -> list[Conclusion]:
    """Put what was found into the ledger of the run, and into its plan, so that tables show it.

    What was found of methods that are no longer the run's is left out, and returned.

    Args:
        folder: The run.
        found: What one panel found, site by site.
        seconds: How long asking took; None where nobody was asked.

    Raises:
        LedgerError, StorageError: They cannot be written.
    """
    with Ledger(folder / LEDGER) as ledger:
        plan, groups = read_plan(folder), outcomes(folder)
        there = {cell["id"] for cell in plan["cells"]}
        current = [one for one in found if there.issuperset(cells_of(one))]
        entries = [one for one in plan.get("judged", []) if one["kind"] not in {each.kind for each in current}]
        for one in current:
            for group in records_of(one, groups):
                if not is_known(group, groups.get(group[0].cell, [])):
                    ledger.append_cell(group)
            entries.append(entry_of(one))
        plan.pop("schema", None)
        took = {} if seconds is None else {"took": plan.get("took", {}) | {"judging_seconds": seconds}}
        write_plan(folder, plan | {"judged": entries} | took)
    return [one for one in found if one not in current]


def cells_of(one: Conclusion) -> list[str]:
    """The cells that were compared."""
    return sorted(cell for cells in one.context.cells.values() for cell in cells)


def is_known(group: Sequence[Record], before: Sequence[Record]) -> bool:
    """Whether the ledger ends with the same values already."""

    def said(records: Sequence[Record]) -> list[Any]:
        return [
            (one.metric, one.value, one.low, one.high, one.n, one.n_excluded, one.reason, one.notes) for one in records
        ]

    return said(group) == said(before)


def entry_of(one: Conclusion) -> dict[str, Any]:
    """What the plan says of it: where the columns of the tables find their values."""
    context = one.context
    caption = captioned(one.kind, list(context.judges), one.manifest.settings.unit_pairs, one.report.ranking.seeds)
    return {
        "kind": one.kind,
        "panel": context.panel,
        "site": context.site,
        "pool": one.manifest.pool_id,
        "caption": caption,
        "caveats": caveats(one),
        "cells": cells_of(one),
        "verdicts": {label: identity_of(one, method) for method, label in one.manifest.pool},
    }


def caveats(one: Conclusion) -> list[str]:
    """What a reader of a table made from it has to know, in a few words; the report of the site has all of it."""
    accepted = one.context.accepted
    open_ones = [each for each in one.report.calibrations if each.judge not in accepted]
    bad = [each.judge for each in open_ones if each.gate.passed is False]
    untried = [each.judge for each in open_ones if each.gate.passed is None]
    unread = [judge for judge, counts in one.report.rungs.items() if counts["unanswered"]]
    said = {"did not pass calibration": bad, "is not calibrated": untried, "did not answer everything": unread}
    return [f"at {one.context.site} {', '.join(judges)} {what}" for what, judges in said.items() if judges]


def records_of(one: Conclusion, groups: Mapping[str, Sequence[Record]]) -> list[list[Record]]:
    """A group of records for each method: its values, then the row that closes it.

    What is said of the method itself is taken from the records of its first cell.
    """
    context, prefix = one.context, "llm" if one.kind == "llm_panel" else "proxy"
    caveat = "; ".join(caveats(one)) or None
    values = values_of(one.report.ranking, one.manifest.notes.methods, prefix, caveat)
    notes: dict[str, Any] = {
        "machine": machine(),
        "pool": one.manifest.pool_id,
        "panel": context.panel,
        "judges": ", ".join(context.judges),
        "reader": READER_VERSION,
        "token_seeds": ", ".join(map(str, one.report.ranking.token_seeds)),
        **{f"{name}_fingerprint": value for name, value in one.manifest.fingerprints.items()},
        "warnings": "; ".join(warnings(one.report)),
    }
    found = []
    for method, label in one.manifest.pool:
        closing = groups[context.cells[label][0]][-1]
        own: dict[str, Any] = {
            "cell": identity_of(one, method),
            "notes": notes,
            "time": now(),
            "seconds": None,
            "peak_bytes": None,
        }
        closing = replace(closing, text=COMPLETE, metric=STATUS, **own, **provenance())
        rows = [
            replace(closing, kind="value", metric=row.name, text=None, unit=row.unit, **vars(values[method][row.name]))
            for row in rows_for(prefix)
        ]
        found.append([*rows, closing])
    return found

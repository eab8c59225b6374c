"""The paper's Table 1 of a run: a tick where a property was measured, beside the paper's own."""

from results import published
from results.claims import ClaimsSpec
from results.digits import footnote
from results.filling import NOT_PRINTED, expansion_of, places_of, warnings_of
from results.layout import Beside, Layout, PaperForm
from results.sheets import ABSENT, DASH, Cell, Heading, Notes, Row, Sheet, Span, by_letter, grouped, noted
from results.summaries import Summaries, Summary

YES, NO = "✓", "✗"


def ticks_sheet(spec: ClaimsSpec, form: PaperForm, summaries: Summaries, layout: Layout, beside: Beside) -> Sheet:
    """A row for each method: what was measured, bold where the paper says otherwise."""
    notes: Notes = {}
    theirs = {row[form.key]: row for row in published.rows_of(form.file)}
    named = []
    for site, label in layout.rows():
        row = {column.metric: summaries[site.label, label, column] for column in spec.columns}
        cells = tuple(
            _cell(spec, at, row, theirs.get(label, {}).get(form.columns[at].column, ""), form, beside, notes)
            for at in range(len(spec.claims))
        )
        expansion = expansion_of(summaries, site, label)
        words = (form.name(label),)
        named.append(((site.label,), Row(words, cells, label, label in layout.references, site, expansion)))
    told = " In brackets what the paper says; " if beside == "cell" else " Beside the paper, "
    return Sheet(
        name=spec.name,
        caption=(
            Span(f"{spec.title}.{told}"),
            Span("bold", "strong"),
            Span(" where it says otherwise; "),
            Span("references", "reference"),
            Span(" are there to compare with."),
        ),
        words=("Site", *form.words),
        headings=tuple(Heading(one.heading) for one in form.columns),
        groups=grouped(named),
        warnings=warnings_of(layout),
        remarks=(
            *((Span(f"{claim.heading}: {claim.says}"),) for claim in spec.claims),
            *((Span(one),) for one in form.remarks),
            *places_of(layout),
        ),
        footnotes=by_letter(notes),
    )


def _cell(
    spec: ClaimsSpec,
    at: int,
    row: dict[str, Summary],
    paper: str,
    form: PaperForm,
    beside: Beside,
    notes: Notes,
) -> Cell:
    """One property of one method."""
    claim = spec.claims[at]
    measured, text = claim.measured(row)
    letters = noted(footnote(row[claim.rules[0].metric]), notes) if measured is None else ()
    answer = DASH if measured is None else YES if measured else NO
    differs = bool(paper) and measured is not None and form.name(paper) != answer
    said = form.name(paper) or ABSENT
    if beside == "cell" and not paper:
        letters += noted(NOT_PRINTED, notes)
    return Cell(
        answer + (f" ({text})" if text and differs else ""),
        "strong" if differs else "",
        notes=letters,
        value=None if measured is None else float(measured),
        published=said if beside == "cell" else "",
    )

"""A table of claims: what each method says of itself beside what was measured (Table 1 of the ELUDe paper).

The claims stand in the records' notes as `claims_NAME`; what was measured follows from metrics by the rules below. A
claim that is measured otherwise is bold, whichever way round, and has a footnote.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from results.digits import footnote, number, shown
from results.filling import expansion_of, places_of, warnings_of
from results.layout import Column, Layout, PaperForm, Site
from results.lines import Line, to_csv
from results.records import Record
from results.sheets import DASH, Cell, Heading, Notes, Row, Sheet, Span, by_letter, grouped, noted
from results.summaries import Summaries, Summary

NOTE = "claims_"
"""What a claim's name begins with in the notes of a record."""

UNTOUCHED = "untouched"

_Row = Mapping[str, Summary]
_Told = Mapping[tuple[str, str], Mapping[str, bool]]


@dataclass(frozen=True)
class Rule:
    """Where one metric lies if a property is there.

    Attributes:
        metric: The metric.
        at_least: Its smallest value, None where there is none.
        at_most: Its largest value, None where there is none.
        scale: The metric that it is taken as a share of; None takes it as it is.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    scale: str | None = None

    def number(self, row: _Row) -> float | None:
        """What is held against the bounds; None where it was not measured."""
        value = row[self.metric].mean
        size = row[self.scale].mean if self.scale else 1.0
        if value is None or size is None:
            return None
        return value / size if size else value

    def holds(self, number: float) -> bool:
        """Whether it lies within them."""
        return (self.at_least is None or number >= self.at_least) and (self.at_most is None or number <= self.at_most)


@dataclass(frozen=True)
class Claim:
    """One property as a column.

    Attributes:
        name: Its name in the notes, after `NOTE`.
        heading: Words above the column.
        says: When it holds, in words, for the note below the table.
        rules: All of them hold where the property is there.
        columns: The metrics behind it, rules and more; the first tells how the number in brackets is written.
        has_number: Whether the number stands in brackets behind the answer; of several rules' the largest.
        unless_untouched: Whether the property is there, too, where virtual units leave the network as it is.
    """

    name: str
    heading: str
    says: str
    rules: tuple[Rule, ...]
    columns: tuple[Column, ...]
    has_number: bool = True
    unless_untouched: bool = False

    def measured(self, row: _Row) -> tuple[bool | None, str]:
        """Whether the property is there, None where it was not measured, and what stands in brackets."""
        numbers = [rule.number(row) for rule in self.rules]
        if self.unless_untouched and row[IN_PLACE.metric].mean == 0:
            return True, UNTOUCHED
        known = [one for one in numbers if one is not None]
        if len(known) < len(numbers):
            return None, ""
        holds = all(rule.holds(one) for rule, one in zip(self.rules, known, strict=True))
        return holds, number(self.columns[0], max(known), self.columns[0].decimals) if self.has_number else ""


@dataclass(frozen=True)
class ClaimsSpec:
    """A table of claims without its answers.

    Attributes:
        name: Its name on the command line.
        title: First words of its caption.
        claims: Its properties from left to right.
        beside: The metrics whose numbers stand in columns of their own, after them.
        form: How the paper lays it out, where only what was measured is shown; None shows claims as well.
    """

    name: str
    title: str
    claims: tuple[Claim, ...]
    beside: tuple[Column, ...] = ()
    form: PaperForm | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every metric that the table is made of."""
        return tuple(dict.fromkeys(column for claim in self.claims for column in claim.columns))


IN_PLACE = Column("runs_in_place", "in place", "none", 0, 0, "1")
_DIFFERENCES = tuple(
    Column(f"{what}_difference{suffix}", f"{what} diff. {dtype}", "none", 1, 1, unit, is_scientific=True)
    for what, unit in (("output", "activations"), ("logit", "logits"))
    for suffix, dtype in (("", "float32"), ("_float64", "float64"))
)

PROPERTIES = ClaimsSpec(
    name="properties",
    title="What methods claim, and what was measured",
    claims=(
        Claim(
            "stable",
            "stable",
            "two runs with different seeds give the same dictionary: their similarity, in brackets, is at least 0.99",
            (Rule("seed_similarity", at_least=0.99),),
            (Column("seed_similarity", "similarity", "none", 3, 3, "1"),),
        ),
        Claim(
            "training_free",
            "training-free",
            "no optimizer takes a step; how many were taken stands in brackets",
            (Rule("gradient_steps", at_most=0),),
            (Column("gradient_steps", "steps", "none", 0, 0, "steps"),),
        ),
        Claim(
            "explicit",
            "explicit",
            "the network runs with the atoms in place of the site",
            (Rule("runs_in_place", at_least=1),),
            (IN_PLACE,),
            has_number=False,
        ),
        Claim(
            "lossless",
            "lossless",
            "in float64 no output and no logit differs by more than 1e-9 of the largest (that share is in brackets), "
            "or virtual units leave the network untouched",
            (
                Rule("output_difference_float64", at_most=1e-9, scale="largest_output"),
                Rule("logit_difference_float64", at_most=1e-9, scale="largest_logit"),
            ),
            (
                *sorted(_DIFFERENCES, key=lambda column: "float64" not in column.metric),
                Column("largest_output", "largest output", "none", 1, 1, "activations"),
                Column("largest_logit", "largest logit", "none", 1, 1, "logits"),
            ),
            unless_untouched=True,
        ),
        Claim(
            "unsupervised",
            "unsupervised",
            "the method runs with the labels withheld",
            (Rule("runs_without_labels", at_least=1),),
            (Column("runs_without_labels", "without labels", "none", 0, 0, "1"),),
            has_number=False,
        ),
    ),
    beside=_DIFFERENCES,
)


def claimed(records: Iterable[Record], layout: Layout) -> dict[tuple[str, str], dict[str, bool]]:
    """What the method of each (site label, method label) claims, by name; empty where no record says it."""
    place = {cell: (site, label) for (site, label, _, _), cell in layout.cells.items()}
    found: dict[tuple[str, str], dict[str, bool]] = {}
    for record in records:
        if record.cell in place:
            notes = {name.removeprefix(NOTE): note for name, note in record.notes.items() if name.startswith(NOTE)}
            found.setdefault(place[record.cell], {}).update(notes)
    return found


def claims_sheet(spec: ClaimsSpec, told: _Told, summaries: Summaries, layout: Layout) -> Sheet:
    """What each method claims and what was measured, with what the properties mean below."""
    notes: Notes = {}
    named = []
    for site, label in layout.rows():
        row = {column.metric: summaries[site.label, label, column] for column in spec.columns}
        claims = told.get((site.label, label), {})
        cells = [
            *(_answer(claim, claims.get(claim.name), row, notes) for claim in spec.claims),
            *(Cell(shown(one, row[one.metric]), value=row[one.metric].mean) for one in spec.beside),
        ]
        expansion = expansion_of(summaries, site, label)
        named.append(((site.label,), Row((label,), tuple(cells), label, label in layout.references, site, expansion)))
    several = len(layout.token_seeds) > 1
    seeds = f"{'Means over token seeds' if several else 'Token seed'} {', '.join(map(str, layout.token_seeds))}"
    return Sheet(
        name=spec.name,
        caption=(
            Span(f"{spec.title}: claimed / measured, "),
            Span("bold", "strong"),
            Span(f" where the two disagree. {seeds}, init seed {layout.init_seeds[0]}; "),
            Span("references", "reference"),
            Span(" are there to compare with."),
        ),
        words=("site", "method"),
        headings=(
            *(Heading(claim.heading) for claim in spec.claims),
            *(Heading(column.heading, column.direction) for column in spec.beside),
        ),
        groups=grouped(named),
        warnings=warnings_of(layout),
        remarks=(*((Span(f"{claim.heading}: {claim.says}"),) for claim in spec.claims), *places_of(layout)),
        footnotes=by_letter(notes),
    )


def _answer(claim: Claim, is_claimed: bool | None, row: _Row, notes: Notes) -> Cell:
    """Claimed / measured (number), bold where they disagree, and the letters of what is to be said of it."""
    is_measured, text = claim.measured(row)
    after = _word(is_measured) + (f" ({text})" if text else "")
    disagrees = None not in (is_claimed, is_measured) and is_claimed != is_measured
    found: tuple[str, ...] = ()
    if disagrees:
        after = after.replace(_word(is_measured), _word(is_measured).upper(), 1)
        found = noted(f"{'' if is_claimed else 'not '}claimed to be {claim.heading}, measured otherwise", notes)
    if text != UNTOUCHED:
        found += noted(footnote(row[claim.rules[0].metric]), notes)
    if is_claimed is None:
        found += noted("no record says what the method claims", notes)
    value = None if is_measured is None else float(is_measured)
    return Cell(after, "strong" if disagrees else "", f"{_word(is_claimed)} / ", found, value)


def _word(answer: bool | None) -> str:
    """Yes, no, or a dash for what is not known."""
    return DASH if answer is None else "yes" if answer else "no"


def claims_to_csv(spec: ClaimsSpec, told: _Told, summaries: Summaries, layout: Layout) -> str:
    """One line per site, method label, property and metric behind it; an answer that is not known is empty."""

    def lines(site: Site, label: str) -> Iterable[Line]:
        row = {column.metric: summaries[site.label, label, column] for column in spec.columns}
        claims = told.get((site.label, label), {})
        for claim in spec.claims:
            answers = (claims.get(claim.name), claim.measured(row)[0])
            texts = [claim.name, *("" if one is None else _word(one) for one in answers)]
            for column in claim.columns:
                yield site, label, texts, column

    every = [line for site, label in layout.rows() for line in lines(site, label)]
    return to_csv(every, summaries, layout, own=("property", "claimed", "measured"))

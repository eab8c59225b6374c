"""A report of made things: two sites, three methods, plain images, and texts that try to be more than text."""

import io
from html import escape

from PIL import Image

from results.explored import Atom, Explored, Judged, Pictures, Reply, Shown, Unit
from results.report import Drawing, Report, Sheet, Trouble, Views
from results.sheets import Cell, Group, Heading, Row, Span
from results.sheets import Sheet as TableSheet
from results.web_tables import to_html

GRID = (4, 4)
BOLD = '"><b>'
SCRIPT = "</script><script>window.broken = true</script><!-- \u2028 \u2029 ]]>"
IMG = '<img src="x" onerror="window.broken = true">'
LONG = "reasons & more <i>reasons</i> " * 3_500
PATH = """runs/it's "here" <svg onload='window.broken=true'>"""
SITES, METHODS = ("shapes", "photos"), ("elude", "topk_sae", BOLD)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="200"><path d="M0 200L400 0" stroke="#069"/></svg>'
SCORES = {
    ("shapes", "backbone"): (10.25, None),
    ("shapes", "elude"): (41.5, 3.4),
    ("shapes", "topk_sae"): (37.125, 8.0),
    ("shapes", BOLD): (None, 8.0),
    ("photos", "backbone"): (9.5, None),
    ("photos", "elude"): (22.0, 2.9),
    ("photos", "topk_sae"): (35.0, 8.0),
    ("photos", BOLD): (5.0, 8.0),
}


def png(index: int) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    colour = (37 * index % 256, 91 * index % 256, 151 * index % 256)
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def leaderboard() -> Sheet:
    """A table as `results.tables.render` writes it."""
    rows = []
    for (site, label), (score, expansion) in SCORES.items():
        is_first = label == "backbone"
        data = {
            "site": site, "backbone": f"vit of {site}", "dataset": site, "module": "blocks.2.mlp.fc2", "label": label,
            "reference": str(is_first).lower(), "expansion": "" if expansion is None else expansion,
        }  # fmt: skip
        head = f'<td class="group">{site}</td>'
        numbers = "".join(
            f'<td class="number" data-value="{"" if one is None else one}">{"—" if one is None else one}</td>'
            for one in (score, expansion)
        )
        attributes = " ".join(f'data-{name}="{escape(str(value))}"' for name, value in data.items())
        rows.append(f'<tr {attributes}>{head}<th scope="row">{escape(label)}</th>{numbers}</tr>')
    heads = '<th scope="col" class="group">site</th><th scope="col" class="name">method</th>'
    heads += "".join(f'<th scope="col">{name}</th>' for name in ("MS-Score (%) ↑", "expansion"))
    table = (
        f'<table class="sheet" data-table="leaderboard"><caption>All methods.</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return Sheet("leaderboard", "Leaderboard", table)


def wide() -> Sheet:
    """A table as wide as the leaderboard of a suite with judges and labels."""
    headings = tuple(Heading(f"measured so {number} (%)", "up") for number in range(18))
    cells = tuple(Cell(f"{10 + number}.25 [{number}.5, {20 + number}.5]") for number in range(18))
    groups = [
        Group((site,), tuple(Row((label,), cells, label) for label in ("matching_pursuit_sae", *METHODS)))
        for site in SITES
    ]
    caption = (Span("What the numbers are and what the marks mean. " * 12),)
    sheet = TableSheet("wide", caption, ("site", "method"), headings, tuple(groups))
    return Sheet("wide", "A wide table", to_html(sheet))


def atom(index: int, *, n_inputs: int | None = None, n_members: int | None = None) -> Atom:
    """An atom that ten images drive."""
    return Atom(
        index=index,
        images=tuple((index + step) % 24 for step in range(10)),
        positions=tuple((index * 5 + step) % 17 for step in range(10)),
        codes=tuple(9.0 - 0.5 * step - index / 100 for step in range(10)),
        scores={"ms_score": 40.0 + index / 8, "hoyer": None},
        n_members=n_members,
        inputs=() if n_inputs is None else ((3, 0.75), (11, -0.5), (90, 0.125)),
        n_inputs=n_inputs,
    )


def explored(site: str, label: str) -> Explored:
    """ELUDe splits units into three parts each; others split none."""
    if label == "elude":
        parts = [tuple(atom(3 * u + p, n_inputs=12, n_members=100 + p) for p in range(3)) for u in range(6)]
        units = tuple(Unit(u, atom(u), parts[u]) for u in range(6))
    else:
        units = tuple(Unit(None, None, (atom(u),)) for u in range(0, 40, 4))
    return Explored(site, label, "elude", 42, 42, units, 96, 400, "6 of 96 units, evenly spaced")


def judged(n: int = 23) -> list[Judged]:
    """Presentations; judges disagree in every third, and every fifth has no majority."""
    pairs = []
    for i in range(n):
        second = METHODS[1 + i % 2]
        choices = ("A", "B" if i % 3 == 0 else "A", None)
        texts = (SCRIPT + IMG, LONG if i == 0 else "B", f"{IMG} {i}")
        replies = tuple(
            Reply(f"judge-{j}", choice, "round things" if j == 0 else "", IMG if j == 0 else "", texts[j])
            for j, choice in enumerate(choices[: 2 if i % 3 else 3])
        )
        first = Shown("elude", i % 18, tuple(range(9)))
        other = Shown(second, 4 * (i % 10), tuple(range(9, 18)))
        consensus = None if i % 5 == 0 else "A"
        site = SITES[i % 2]
        pairs.append(Judged(site, "qwen", "llm_panel", f"p{i}", 42, first, other, replies, consensus))
    return [*pairs, *planted()]


def planted() -> list[Judged]:
    """One pair whose right answer is known in both orders, judges right once; and one whose sides are alike."""
    pure, mixed = Shown("nine of one class", None, tuple(range(9))), Shown("nine at random", None, tuple(range(9, 18)))
    replies = tuple(Reply(f"judge-{choice}", choice, "", "", choice) for choice in "AB")
    rung = "9 against random"
    head = ("shapes", "qwen", "llm_panel")
    return [
        Judged(*head, "q0", -1, pure, mixed, replies, "A", rung, "A"),
        Judged(*head, "q1", -1, mixed, pure, replies, "A", rung, "B"),
        Judged(*head, "q2", -1, pure, pure, replies, None, "same grid", None),
    ]


def views() -> Views:
    """Everything that can be explored."""
    files = {index: png(index) for index in range(24)}
    captions = {0: IMG, 1: "a red circle", 2: BOLD}
    pictures = [Pictures(site, files, captions, GRID, 1, f"none needed {SCRIPT}") for site in SITES]
    return Views(pictures, [explored(site, label) for site in SITES for label in METHODS], judged())


def report() -> Report:
    """The whole of it."""
    drawing = Drawing("pareto", "Faithfulness against interpretability", f"Up and right is better {BOLD}", SVG)
    return Report(
        suite=f"made {BOLD}",
        description="Two sites and four methods, made up.",
        warnings=["shapes: random weights. These are no results.", IMG],
        facts=[("command", f"eludebench run {PATH}"), ("commit", "0123456789ab"), ("versions", SCRIPT)],
        counts=[("complete", 7), ("failed", 1)],
        troubles=[Trouble("failed", f"ValueError: {SCRIPT}", (f"photos/{BOLD}/t42/i42",))],
        leaderboard=leaderboard(),
        pareto=drawing,
        tables=[wide()],
        figures=[Drawing("latency", "Latency", "Bars, one for each method", SVG)],
        panels=["Judged by one model."],
        panel_tables=[],
        panel_figures=[],
        command=f"eludebench report {PATH}",
        next_step="Run the suite.",
        views=views(),
        left_out=["90 of 96 units"],
        leaders=[f"shapes: {BOLD} is best by MS-Score, 41.50 %."],
        reading=[
            ("Columns", [("MS-Score (%)", "Mean over scored atoms. More is better.")]),
            ("Methods", [(BOLD, IMG)]),
        ],
    )

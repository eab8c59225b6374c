"""The report of a panel: what it always says, what it never says, and that its files are the same each time."""

import json
import re
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from made_votes import presentation

from judges.drawn import MethodNote, Notes, PairNote
from judges.markdown import letters, report_markdown
from judges.protocol import PAPER, Choice, JudgeKind, Presentation, Settings, Verdict
from judges.report import Report, as_json, report, warnings

METHODS = ("aa", "bb", "cc")
LABELS = {"aa": "Alpha | one", "bb": "Beta"}
PROXIES: dict[str, JudgeKind] = {"pixels": "proxy", "texture": "proxy", "vision": "vlm"}
VLMS: dict[str, JudgeKind] = dict.fromkeys(PROXIES, "vlm")


def tournament() -> list[Presentation]:
    """Three methods, four unit pairs each, two seeds, and planted pairs."""
    found = []
    for seed in (0, 1):
        for first, second in (("aa", "bb"), ("aa", "cc"), ("bb", "cc")):
            for k in range(4):
                name = f"{first}{second}{seed}{k}"
                found += [
                    presentation(f"{name}{order}", name, order, methods=pair, token_seed=seed)
                    for order, pair in enumerate(((first, second), (second, first)))
                ]
    for rung, answers in (("easy", ("A", "B")), ("null", ("none", "none"))):
        found += [
            presentation(f"{rung}{k}{o}", f"{rung}{k}", o, methods=("", ""), rung=rung, expected=answers[o])
            for k in range(10)
            for o in (0, 1)
        ]
    return found


def made(kinds: dict[str, JudgeKind], settings: Settings, accepted: tuple[str, ...] = ()) -> Report:
    rng = np.random.default_rng(0)
    presentations = tournament()
    letters_: tuple[Choice, ...] = ("A", "B", "none")
    verdicts = {
        judge: {
            one.id: Verdict("A" if one.methods[0] == "aa" else letters_[rng.choice(3, p=[0.5, 0.4, 0.1])], "json")
            for one in presentations[5 * place :]
        }
        for place, judge in enumerate(kinds)
    }
    return report(
        presentations,
        verdicts,
        settings,
        title="vit, site blocks.11",
        kinds=kinds,
        labels=LABELS,
        easiest="easy",
        accepted=accepted,
    )


QUICK = Settings(n_resamples=50)


@pytest.fixture(scope="module")
def proxies() -> Report:
    return made(PROXIES, QUICK)


@pytest.fixture(scope="module")
def vlms() -> Report:
    return made(VLMS, QUICK)


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def columns(text: str, n: int | None = None) -> list[str]:
    """Names of the first n columns of every table."""
    lines = text.splitlines()
    heads = [line for line, below in pairwise(lines) if below.startswith("| ---")]
    return [cell.strip() for line in heads for cell in re.split(r"(?<!\\)\|", line)[1:-1][:n]]


def test_a_proxy_panel_says_so_everywhere(proxies: Report) -> None:
    text = report_markdown(proxies)
    assert len(headings(text)) >= 6
    assert all("proxy panel" in line for line in [*headings(text), *columns(text, 1)])
    for said in (text, json.dumps(as_json(proxies))):
        assert "llm rank" not in said.lower().replace("_", " ")


def test_a_scripted_panel_says_so() -> None:
    text = report_markdown(made({"script": "scripted", "vision": "vlm"}, QUICK))
    assert all("scripted panel" in line for line in [*headings(text), *columns(text, 1)])
    assert "LLM Rank" not in text


def test_a_panel_of_vision_language_models_gives_the_llm_rank(vlms: Report) -> None:
    text = report_markdown(vlms)
    assert "LLM Rank" in headings(text)[0]
    assert "LLM Rank" in columns(text)
    assert "panel)" not in text


def test_warnings_come_first(vlms: Report) -> None:
    lines = report_markdown(vlms).splitlines()
    said = warnings(vlms)
    assert lines[2] == f"- **Warning:** {said[0]}."
    for words in (
        "fails the gate, not accepted by name",
        "has not answered 5 of 48",
        "leans to a position",
        "seeds 2/3",
    ):
        assert any(words in one for one in said)
    accepted = warnings(made(VLMS, PAPER, accepted=tuple(VLMS)))
    assert any("fails the gate, accepted by name" in one for one in accepted)
    assert not any("not accepted" in one for one in accepted)
    assert any("intervals as in the paper" in one for one in accepted)


def test_numbers_of_the_table_are_those_of_the_ranking(vlms: Report) -> None:
    text = report_markdown(vlms)
    for one in vlms.ranking.standings:
        label = vlms.label(one.method).replace("|", "\\|")
        number = one.win_rate
        shown = f"| {label} | {one.rank} | {one.rank_low} to {one.rank_high} | {number.value:.2f} [{number.low:.1f}, "
        assert shown in text
    assert "Alpha \\| one" in text
    assert "| cc |" in text


def test_json_has_everything_and_no_nan(vlms: Report) -> None:
    found = json.loads(json.dumps(as_json(vlms), allow_nan=False))
    assert found["panel"] == "vlm panel"
    assert found["warnings"] == list(warnings(vlms))
    assert [one["method"] for one in found["ranking"]["standings"]] == [one.method for one in vlms.ranking.standings]
    assert found["ranking"]["standings"][0]["win_rate"]["low"] == vlms.ranking.standings[0].win_rate.low
    assert found["ranking"]["settings"]["n_resamples"] == 50
    assert len(found["agreement"]["kappas"]) == 3
    assert len(found["calibrations"]) == 3


def nothing(judges: dict[str, JudgeKind], presentations: list[Presentation]) -> Report:
    verdicts: dict[str, dict[str, Verdict]] = {judge: {} for judge in judges}
    return report(presentations, verdicts, QUICK, title="none", kinds=judges, labels={}, easiest="easy")


@pytest.mark.parametrize("presentations", [tournament(), []], ids=["no replies", "no presentations"])
def test_nothing_known_is_shown_as_absent(presentations: list[Presentation]) -> None:
    found = nothing(VLMS, presentations)
    text = report_markdown(found)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert "None" not in text
    json.dumps(as_json(found), allow_nan=False)
    if presentations:
        assert "- Beta, win rate" not in text
        assert "- bb, win rate: no decided presentation." in text
        assert "48 undecided (48 with no valid vote), left out" in text


def test_judges_have_a_kind() -> None:
    with pytest.raises(ValueError, match="got none for vision; expected the kind of every judge; say which"):
        report([], {"vision": {}}, QUICK, title="", kinds={}, labels={}, easiest="easy")


NOTES = Notes(
    pairs=(
        PairNote("s", 0, ("aa", "bb"), 4, 2, 1, "Beta: 2 eligible units"),
        PairNote("s", 0, ("aa", "cc"), 4, 4, 0, ""),
        PairNote("s", 0, ("bb", "cc"), 4, 2, 0, "Beta: 2 eligible units"),
        PairNote("s", 1, ("aa", "bb"), 4, 3, 2, "Beta: 3 eligible units"),
        PairNote("s", 1, ("aa", "cc"), 4, 4, 0, ""),
        PairNote("s", 1, ("bb", "cc"), 4, 2, 0, "Beta: 2 eligible units"),
    ),
    methods=(MethodNote("s", 0, "aa", 9, 1),),
    planted=("s: no planted pairs 'one blank': the images have no labels",),
)


def test_what_could_not_be_drawn_is_said_in_a_few_lines(vlms: Report) -> None:
    found = replace(vlms, notes=NOTES)
    text = report_markdown(found)
    assert text == report_markdown(vlms) + (
        "\n## What could not be drawn\n\n"
        "- 2 of 4 unit pairs (Beta: 2 eligible units; token seeds 0, 1): Alpha | one against Beta, Beta against cc.\n"
        "- 3 of 4 unit pairs (Beta: 3 eligible units; token seeds 1): Alpha | one against Beta.\n"
        "- Unit pairs with equal grids, kept as null pairs: Alpha | one against Beta 3.\n"
        "- s: no planted pairs 'one blank': the images have no labels.\n"
    )
    whole = Notes(pairs=(NOTES.pairs[1],), methods=NOTES.methods)
    assert report_markdown(replace(vlms, notes=whole)) == report_markdown(vlms)


def test_json_has_the_notes() -> None:
    none: dict[str, dict[str, Verdict]] = {"vision": {}}
    found = report(tournament(), none, QUICK, title="", kinds=VLMS, labels={}, easiest="easy", notes=NOTES)
    assert as_json(found)["notes"] == json.loads(json.dumps(asdict(NOTES)))
    assert as_json(replace(found, notes=None))["notes"] is None


def test_letters() -> None:
    assert letters((1, 2)) == "a b"
    assert letters((26, 27)) == "z 27"


@pytest.mark.parametrize(
    ("kinds", "panel"),
    [
        (("vlm", "vlm"), ""),
        (("vlm", "proxy"), "proxy panel"),
        (("vlm", "scripted"), "scripted panel"),
        (("scripted", "proxy"), "proxy panel"),
        (("vlm", "clip"), "proxy panel"),
        (("clip", "clip"), "proxy panel"),
        (("clip", "scripted"), "scripted panel"),
    ],
)
def test_only_vision_language_models_make_the_paper_s_panel(vlms: Report, kinds: tuple[str, ...], panel: str) -> None:
    found = replace(vlms, kinds=dict(zip(PROXIES, (*kinds, kinds[0]), strict=True)))
    assert found.panel == panel
    assert ("LLM Rank" in report_markdown(found)) == (panel == "")

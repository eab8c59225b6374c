"""Panel files: who judges and how, read strictly, all problems at once."""

from pathlib import Path
from typing import Any

import pytest

from bench import UsageError
from bench.options import Problems, built
from bench.panels import Panel, judged_by, load_panel
from bench.registry import Registry, panel_path, shipped_panels
from bench.suites import load_suite
from judges.protocol import PAPER, Settings

MINE = """
[settings]
unit_pairs = 5
cell_px = 48

[[judges]]
judge = "proxy"
name = "pixels"
"""


def panel_of(folder: Path, text: str) -> Panel:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_panel(str(path), Registry())


@pytest.mark.parametrize("name", list(shipped_panels()))
def test_every_shipped_panel_loads(name: str) -> None:
    panel = load_panel(name, Registry())
    assert panel.name == name
    assert len(panel.judges) == 3
    assert len({judge.name for judge in panel.judges}) == 3


def test_the_paper_s_panel_has_the_paper_s_settings_and_judges() -> None:
    panel = load_panel("paper", Registry())
    assert panel.settings == PAPER
    assert panel.kind == "llm_panel"
    assert [judge.name for judge in panel.judges] == ["qwen3_vl_30b_a3b", "gemma3_27b", "internvl3_14b"]
    assert not any(judge.reask for judge in panel.judges)  # type: ignore[attr-defined]
    default = load_panel("default", Registry())
    assert default.settings == Settings()
    assert all(judge.reask for judge in default.judges)  # type: ignore[attr-defined]
    assert [judge.name for judge in default.judges] == [judge.name for judge in panel.judges]


def test_a_single_proxy_makes_a_panel_a_proxy_panel(tmp_path: Path) -> None:
    assert panel_of(tmp_path, MINE).kind == "proxy_panel"
    vlm = '[[judges]]\njudge = "endpoint"\nname = "a"\nmodel = "m"\nurls = ["http://127.0.0.1:1/v1"]\n'
    assert panel_of(tmp_path, vlm).kind == "llm_panel"
    assert panel_of(tmp_path, vlm + MINE).kind == "proxy_panel"


def test_settings_are_taken_and_others_are_the_defaults(tmp_path: Path) -> None:
    assert panel_of(tmp_path, MINE).settings == Settings(unit_pairs=5, cell_px=48)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "judges: got none; expected at least one [[judges]] table; add one"),
        (MINE + '[[judges]]\njudge = "proxi"\n', "did you mean 'proxy'?"),
        (MINE + '[[judges]]\njudge = "proxy"\nname = "pixels"\n', "name 'pixels' is used twice"),
        (MINE.replace("pixels", "pixel"), "got 'pixel'; expected one of pixels, texture, filters"),
        (MINE + "[[judges]]\nname = 'x'\n", "judges[1].judge: got None; expected the name of a judge"),
        (MINE.replace("unit_pairs = 5", "unit_pairs = 0"), "unit_pairs: received 0; expected at least 1"),
        (MINE.replace("unit_pairs", "pairs"), "settings.pairs: option: got 'pairs'; did you mean 'unit_pairs'?"),
        (MINE.replace("cell_px = 48", 'eligible = "ten"'), "settings.eligible: got 'ten'; expected one of 'nine'"),
        (MINE + "extra = 1\n[other]\n", "other"),
        ('[[judges]]\njudge = "endpoint"\nurls = "http://x"\n', "urls: got 'http://x'; expected a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        panel_of(tmp_path, text)
    assert expected in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        panel_of(tmp_path, "speed = 1\n[settings]\nseed = -1\n[[judges]]\njudge = 3\n")
    assert len(str(caught.value).splitlines()) == 3


def test_an_unknown_panel_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'proxy'"):
        panel_path("proxi")
    with pytest.raises(UsageError, match="which is no file"):
        panel_path(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("= no toml", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be read"):
        load_panel(str(tmp_path / "bad.toml"), Registry())


def test_a_tuple_option_takes_a_list_of_its_kind() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Takes:
        names: tuple[str, ...] = ()

    def problem(value: Any) -> list[str]:
        problems = Problems("x")
        made = built(Takes, {"names": value}, "o", problems)
        assert (made is None) == bool(problems.found)
        return problems.found

    assert problem(["a", "b"]) == []
    assert problem(["a", 1]) == ["x: o.names: got ['a', 1]; expected a list, each of it a text; change it"]
    made = built(Takes, {"names": ["a"]}, "o", Problems("x"))
    assert made is not None
    assert made[0] == Takes(("a",))


def test_another_panel_at_the_end_leaves_out_what_only_the_other_kind_says() -> None:
    registry = Registry()
    table2, table3, quick = (load_suite(name, registry) for name in ("paper-table2", "paper-table3", "quick"))
    assert judged_by(table3, "", registry) == table3
    assert judged_by(table3, "default", registry).tables == table3.tables
    for name, panel in (("none", ""), ("proxy", "proxy")):
        found = judged_by(table3, name, registry)
        assert (found.panel, found.tables) == (panel, ("leaderboard",))
        assert judged_by(table2, name, registry).tables == table2.tables
    assert "proxy_verdicts" in judged_by(quick, "proxy", registry).tables
    assert "proxy_verdicts" not in judged_by(quick, "none", registry).tables
    assert judged_by(quick, "none", registry).cells == quick.cells
    with pytest.raises(UsageError, match="did you mean 'proxy'"):
        judged_by(quick, "proxi", registry)

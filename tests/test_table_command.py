"""The command `table`: the paper's tables without a run, tables of a run, and files that are checked against them."""

from pathlib import Path

import pytest
from test_tables_of_runs import plan
from typer.testing import CliRunner

from bench import UsageError
from bench.cli import app
from bench.committed import SHOWN, block, difference, with_true_blocks
from bench.folder import LEDGER, rendered, write_plan
from results.tables import find_table, render_published

GOLDENS = Path(__file__).parent / "goldens"


def said(*words: str) -> tuple[int, str]:
    """The exit code, and what was printed; a foreseen error's text where there is one."""
    done = CliRunner().invoke(app, ["table", *words])
    return done.exit_code, done.output + (str(done.exception.args[0]) if isinstance(done.exception, UsageError) else "")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a run that measured nothing yet."""
    folder = tmp_path_factory.mktemp("run")
    write_plan(folder, plan(labels=["elude"], cells=[{**plan()["cells"][0], "label": "elude"}], tables=["leaderboard"]))
    (folder / LEDGER).write_text("")
    return folder


@pytest.mark.parametrize("format", ["md", "tex", "html", "csv"])
def test_the_paper_s_tables_need_no_run(format: str) -> None:
    code, text = said("paper-table4", "--published", "--format", format)
    assert (code, text) == (0, render_published(find_table("paper-table4"), format))


@pytest.mark.parametrize("format", ["md", "tex", "html", "csv"])
def test_a_table_of_a_run_is_what_the_library_renders(run: Path, format: str) -> None:
    code, text = said("leaderboard", "--run", str(run), "--format", format)
    assert (code, text) == (0, rendered(run, "leaderboard", format))


def test_beside_chooses_where_the_paper_s_figures_stand(run: Path) -> None:
    (run / "two.json").unlink(missing_ok=True)
    usual, cells, none = (
        said("leaderboard", "--run", str(run), *words)[1]
        for words in ([], ["--beside", "published"], ["--beside", "nothing"])
    )
    assert "Not in" not in usual
    assert "In brackets behind it the paper's number" not in none
    assert cells == rendered(run, "leaderboard", "md", "cell")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "NAME: got none; expected one of ablations, efficiency, ground_truth, leaderboard, paper-table1"),
        (["leaderboard"], "--run: got none; expected the folder of a run; give one, or --published"),
        (["leaderboard", "--published"], "which is not the paper's; expected one of paper-table1"),
        (["paper-table2", "--published", "--run", "x"], "--published: got --run as well"),
        (["paper-table2", "--published", "--beside", "published"], "--published: got --beside as well"),
        (["leaderboard", "--run", "x", "--beside", "paper"], "--beside: got 'paper'; expected published or nothing"),
        (["paper-table22", "--published"], "did you mean 'paper-table2'?"),
        (["--check", "nowhere.md"], "--check: got nowhere.md, which cannot be read"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_in_a_line(words: list[str], expected: str) -> None:
    code, text = said(*words)
    assert code != 0
    assert expected in text


# Files that are checked


def test_a_file_that_is_one_table_of_a_run_is_checked(run: Path) -> None:
    path = run / "leaderboard.md"
    path.write_text(rendered(run, "leaderboard", "md"), encoding="utf-8")
    assert said("--check", str(path)) == (0, f"{path}: its tables follow from the records\n")
    path.write_text(path.read_text(encoding="utf-8").replace("not run yet", "99.9"), encoding="utf-8")
    code, text = said("--check", str(path))
    assert code == 3
    assert "99.9" in text
    assert "+- (a) not run yet" in text
    assert "its tables no longer follow from the records; make them again" in text
    elsewhere = run.parent / "mine.md"
    elsewhere.write_text(rendered(run, "leaderboard", "md"), encoding="utf-8")
    assert said("leaderboard", "--run", str(run), "--check", str(elsewhere))[0] == 0
    assert "whose name is that of no table" in said("--check", str(elsewhere))[1]


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDENS.iterdir()))
def test_golden_files_are_checked_by_the_same_command(name: str) -> None:
    assert said("--published", "--check", str(GOLDENS / name))[0] == 0


def test_a_changed_number_in_a_block_is_found_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "R.md"
    true = with_true_blocks("# R\n\n<!-- table: properties -->\n<!-- end table -->\n")
    path.write_text(true, encoding="utf-8")
    assert difference(path, with_true_blocks(true)) == []
    path.write_text(true.replace("yes / yes", "yes / no", 1), encoding="utf-8")
    code, text = said("--check", str(path))
    assert code == 3
    assert len(text.splitlines()) <= 25
    assert [line[:1] for line in text.splitlines() if line[:2] in ("-|", "+|")] == ["-", "+"]


def test_a_block_of_nothing_that_is_kept_is_refused() -> None:
    assert set(SHOWN) == {"leaderboard", "measured", "properties", "proxy_verdicts"}
    for name in ("leaderbord of quick", "probes", "nothing"):
        with pytest.raises(UsageError, match=r"table: got a block .*; expected `TABLE of FOLDER`"):
            block(name)
    with pytest.raises(UsageError, match=r"--run: got .*nowhere, which holds no run\.json"):
        block("leaderboard of nowhere")
    twice = "<!-- table: properties -->\n<!-- end table -->\n" * 2
    with pytest.raises(UsageError, match="expected one; write the two lines once"):
        with_true_blocks(twice)

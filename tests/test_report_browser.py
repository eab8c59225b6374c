"""The report in a real Chromium: nothing is fetched, nothing that is text runs, and everything on it can be used."""

import base64
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import made_report
import pytest
from chromium import chromium, coloured, requested, resized

from results.report import page

SORTED = """return [...document.querySelectorAll('#leaderboard tbody tr')].filter((row) => !row.hidden)
    .map((row) => [row.dataset.site, row.dataset.label])"""
SHOWN = "return [...document.querySelectorAll('#panes .pane h3')].map((one) => one.textContent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        driver.get("about:blank")
        requested(driver)  # what a new tab asks for
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(made_report.report()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """The page, freshly read; at the end nothing was fetched, complained or executed."""
    resized(browser, 1280)
    coloured(browser, "light")
    visit(browser, address)
    yield browser
    assert {one.split("#")[0] for one in requested(browser)} == {address}
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.broken") is None


def visit(browser: Any, address: str) -> None:
    """Read the page anew, whatever was shown before."""
    browser.get("about:blank")
    browser.get(address)


def assert_soon(browser: Any, script: str, wanted: Any, *arguments: Any) -> None:
    """What the script returns is, before long, what is wanted."""
    from selenium.common import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    try:
        WebDriverWait(browser, 5, 0.02).until(lambda _: browser.execute_script(script, *arguments) == wanted)
    except TimeoutException:
        assert browser.execute_script(script, *arguments) == wanted


def choose(browser: Any, label: str, text: str, inside: str = "body") -> None:
    """Choose an option of the select with that label."""
    from selenium.webdriver.support.ui import Select

    path = f"//label[starts-with(normalize-space(), '{label}')]//select"
    found = [one for one in browser.find_elements("xpath", path) if one.find_elements("xpath", f"./ancestor::{inside}")]
    Select(found[0]).select_by_visible_text(text)


def in_section(section: str) -> str:
    return f"*[@id='{section}']"


def click(browser: Any, selector: str) -> None:
    """Click the first element of that selector."""
    element = browser.find_element("css selector", selector)
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)  # not below the navigation
    element.click()


def by_score(reverse: bool) -> list[list[str]]:
    """Rows as they stand when sorted by the score; what is missing stays below."""
    scores = {key: score for key, (score, _) in made_report.SCORES.items() if score is not None}
    ordered = sorted(scores, key=lambda key: scores[key], reverse=reverse)
    return [list(key) for key in (*ordered, *(key for key in made_report.SCORES if key not in scores))]


def test_a_column_sorts_by_its_numbers_and_the_address_says_so(opened: Any, address: str) -> None:
    head = "#leaderboard thead th:nth-child(3)"
    click(opened, f"{head} button")
    assert_soon(opened, SORTED, by_score(reverse=True))
    sorts = f"return document.querySelector('{head}').getAttribute('aria-sort')"
    assert opened.execute_script(sorts) == "descending"
    click(opened, f"{head} button")
    assert_soon(opened, SORTED, by_score(reverse=False))
    assert opened.execute_script(sorts) == "ascending"
    here = opened.current_url
    opened.back()
    assert_soon(opened, SORTED, by_score(reverse=True))
    visit(opened, here)
    assert_soon(opened, SORTED, by_score(reverse=False))
    click(opened, f"{head} button")
    assert_soon(opened, SORTED, [list(key) for key in made_report.SCORES])


def test_filters_narrow_the_leaderboard_and_say_how_many_are_left(opened: Any) -> None:
    said = "return document.getElementById('leaderboard-count').textContent"
    choose(opened, "Site", "photos")
    assert_soon(opened, SORTED, [list(key) for key in made_report.SCORES if key[0] == "photos"])
    choose(opened, "Kind", "methods")
    assert_soon(opened, said, "3 of 8 rows shown")
    choose(opened, "Expansion", "at most 4")
    assert_soon(opened, SORTED, [["photos", "elude"]])
    choose(opened, "Backbone", "vit of shapes")
    assert_soon(opened, SORTED, [])
    click(opened, "#leaderboard button[type=reset]")
    assert_soon(opened, said, "8 of 8 rows shown")


def test_keys_alone_sort_filter_and_choose(opened: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(opened).send_keys(*keys).perform()

    press(Keys.TAB)
    assert opened.switch_to.active_element.text == "Skip to the content"
    press(Keys.ENTER)
    assert_soon(opened, "return document.activeElement.id", "main")
    for wanted in ("Backbone", "Site"):
        press(Keys.TAB)
        while not opened.execute_script("return document.activeElement.matches('#leaderboard select')"):
            press(Keys.TAB)
        assert opened.switch_to.active_element.find_element("xpath", "..").text.startswith(wanted)
    press("p")  # the option that begins with it
    assert_soon(opened, "return document.getElementById('leaderboard-count').textContent", "4 of 8 rows shown")
    while not opened.execute_script("return document.activeElement.matches('.sorter')"):
        press(Keys.TAB)
    press(Keys.TAB, Keys.TAB, Keys.SPACE)
    assert_soon(opened, SORTED, [key for key in by_score(reverse=True) if key[0] == "photos"])
    while not opened.execute_script("return document.activeElement.matches('.parts button')"):
        press(Keys.TAB)
    press(Keys.TAB, Keys.ENTER)
    assert_soon(opened, SHOWN, ["elude: Unit 0, part 1, atom 0"])
    assert_soon(opened, "return document.activeElement.getAttribute('aria-pressed')", "true")
    style = opened.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid"


def test_units_are_explored_compared_and_found_again(opened: Any) -> None:
    units = in_section("units")
    choose(opened, "Site", "photos", units)
    choose(opened, "Unit", "unit 2, 3 parts", units)
    assert_soon(opened, SHOWN, ["elude: Unit 2, whole"])
    click(opened, ".parts button[data-part='7']")
    assert_soon(opened, SHOWN, ["elude: Unit 2, part 2, atom 7"])
    atom = made_report.explored("photos", "elude").units[2].parts[1]
    numbers = dict(
        opened.execute_script(
            "return [...document.querySelectorAll('.numbers div')]"
            ".map((one) => [...one.children].map((child) => child.textContent))"
        )
    )
    assert numbers["instances in its cluster"] == str(atom.n_members)
    assert numbers["input dimensions it owns"] == str(atom.n_inputs)
    score, unit = numbers["MS-Score"].split(" ")  # as tables call it
    assert float(score) == pytest.approx(atom.scores["ms_score"], abs=0.06)
    assert unit == "%"
    assert numbers["hoyer"] == "–"
    codes = opened.execute_script(
        "return [...document.querySelectorAll('.exemplars figcaption')]"
        ".map((one) => Number.parseFloat(one.textContent))"
    )
    assert codes == pytest.approx(list(atom.codes), abs=0.01)
    click(opened, "#compare")
    assert_soon(opened, "return document.querySelectorAll('.pane').length", 2)
    second = "*[@aria-label='Second method']"
    choose(opened, "Method", made_report.BOLD, second)
    choose(opened, "Unit", "atom 12", second)
    assert_soon(opened, SHOWN, ["elude: Unit 2, part 2, atom 7", f"{made_report.BOLD}: Atom 12"])
    click(opened, "#units [data-state=marks]")
    assert_soon(opened, "return document.querySelectorAll('.exemplars .spot').length", 20)
    link = opened.find_element("id", "units-link").get_attribute("href")
    opened.switch_to.new_window("tab")
    opened.get(link)
    assert_soon(opened, SHOWN, ["elude: Unit 2, part 2, atom 7", f"{made_report.BOLD}: Atom 12"])
    assert_soon(opened, "return document.querySelectorAll('.exemplars .spot').length", 20)
    assert opened.execute_script("return document.activeElement.id") == "units"
    opened.close()
    opened.switch_to.window(opened.window_handles[0])
    opened.back()
    assert_soon(opened, "return document.querySelectorAll('.exemplars .spot').length", 0)
    opened.back()
    opened.back()
    opened.back()
    assert_soon(opened, SHOWN, ["elude: Unit 2, part 2, atom 7"])


def test_what_is_chosen_is_where_the_address_lands_and_nothing_moves_meanwhile(opened: Any) -> None:
    for section, label, text in (("units", "Site", "photos"), ("pairs", "Judges", "they disagree")):
        choose(opened, label, text, in_section(section))
        assert_soon(opened, "return new URLSearchParams(location.hash.slice(1)).get('at')", section)
        assert opened.execute_script("return document.activeElement.id") != section
        opened.back()
        assert_soon(
            opened, "return new URLSearchParams(location.hash.slice(1)).get('at') === arguments[0]", False, section
        )
        assert opened.execute_script("return document.activeElement.id") != section
        opened.forward()
    here = opened.current_url
    visit(opened, here)
    assert_soon(opened, "return document.activeElement.id", "pairs")
    assert_soon(opened, "return document.querySelector('#units select').value", "photos")


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("us=shapes&a=elude~42~42&au=77", "unit 77 of elude is not on this page; unit 0 is shown"),
        ("us=shapes&a=topk_sae~42~42&au=3", "atom 3 of topk_sae is not on this page; atom 0 is shown"),
        ("us=shapes&a=elude~42~42&au=1&ap=9", "atom 9 of unit 1 of elude is not on this page; Unit 1, whole is shown"),
        ("us=shapes&a=nosuch~42~42", "nosuch at shapes is not on this page; elude is shown"),
        ("us=shapes&a=elude~42~42&b=pure~1~2", "pure at shapes is not on this page; topk_sae is shown"),
        ("us=nowhere&a=elude~42~42", "site nowhere is not on this page; shapes is shown"),
    ],
)
def test_a_link_to_what_is_not_here_says_so(opened: Any, address: str, link: str, said: str) -> None:
    visit(opened, f"{address}#at=units&{link}")
    status = "return document.getElementById('units-said').textContent"
    assert_soon(opened, "return document.querySelectorAll('.pane').length", 2 if "&b=" in link else 1)
    assert opened.execute_script(status).startswith(f"{said}. ")
    choose(opened, "Site", "photos", in_section("units"))
    choose(opened, "Method", "topk_sae", in_section("units"))
    choose(opened, "Unit", "atom 4", in_section("units"))
    if "&b=" not in link:
        assert_soon(opened, status, "topk_sae: Atom 4")


def test_the_mark_lies_where_the_token_is(opened: Any, address: str) -> None:
    visit(opened, f"{address}#us=shapes&a=topk_sae~42~42&au=4&marks=1")
    place = """return [...document.querySelectorAll('.exemplars .spot')].map((one) => {
        const [a, b] = [one.getBoundingClientRect(), one.parentElement.getBoundingClientRect()];
        return [(a.top - b.top) / b.height, (a.left - b.left) / b.width, a.width / b.width]})"""
    atom = next(unit.parts[0] for unit in made_report.explored("shapes", "topk_sae").units if unit.parts[0].index == 4)
    rows, columns = made_report.GRID
    wanted = []
    for position in atom.positions:
        row, column = divmod(position - 1, columns)
        wanted.append((row / rows, column / columns, 1 / columns) if position else (0, 0, 1))
    found = opened.execute_script(place)
    assert [tuple(one) for one in found] == [pytest.approx(one, abs=0.02) for one in wanted]


def test_judged_pairs_are_filtered_and_replies_are_text(opened: Any) -> None:
    pairs = in_section("pairs")
    said = "return document.getElementById('pairs-count').textContent"
    made = made_report.judged()
    assert opened.execute_script(said).startswith(f"{len(made)} of {len(made)} pairs")
    choose(opened, "Method", "topk_sae", pairs)
    with_topk = [pair for pair in made if "topk_sae" in (pair.first.label, pair.second.label)]
    assert_soon(opened, said, f"{len(with_topk)} of {len(made)} pairs, page 1 of 2")
    choose(opened, "Judges", "they disagree", pairs)
    odd = [pair for pair in with_topk if len({reply.choice for reply in pair.replies}) > 1]
    assert_soon(opened, said, f"{len(odd)} of {len(made)} pairs")
    opened.execute_script("document.querySelectorAll('.pair:first-child summary').forEach((one) => one.click())")
    texts = "return [...document.querySelectorAll('.pair pre')].map((one) => one.textContent)"
    assert_soon(opened, texts, [reply.text for reply in odd[0].replies])
    assert_soon(
        opened,
        "return [...document.querySelectorAll('.reasons dd')].map((one) => one.textContent)",
        ["round things", made_report.IMG],
    )
    click(opened, ".pair h4 a")
    assert_soon(opened, SHOWN, ["elude: Unit 0, part 1, atom 0"])
    assert_soon(opened, "return document.activeElement.id", "units")


def test_planted_pairs_say_who_is_right(opened: Any) -> None:
    pairs = in_section("pairs")
    methods = "return [...document.querySelectorAll('#pairs [data-state=jm] option')].map((one) => one.textContent)"
    assert sorted(opened.execute_script(methods)) == sorted(["all", *made_report.METHODS])
    choose(opened, "Pairs", "planted pairs", pairs)
    assert_soon(opened, "return document.querySelectorAll('.pair').length", 3)
    found = [one.text for one in opened.find_elements("css selector", ".pair")]
    right, wrong, alike = found
    assert "majority: A (nine of one class), right · shapes · qwen · planted: 9 against random" in right
    assert "judge-A chose A (nine of one class), right" in right
    assert "judge-B chose B (nine at random), wrong" in right
    assert "majority: A (nine at random), wrong" in wrong
    assert "right: B (nine of one class)" in wrong
    assert "planted: same grid · no side is right" in alike
    assert not any("-1" in one for one in found)
    choose(opened, "Pairs", "of methods", pairs)
    n = len(made_report.judged())
    assert_soon(
        opened, "return document.getElementById('pairs-count').textContent", f"{n - 3} of {n} pairs, page 1 of 3"
    )


@pytest.mark.parametrize("width", [1280, 400])
def test_names_stay_while_numbers_scroll(opened: Any, width: int) -> None:
    resized(opened, width)
    opened.execute_script(
        "const box = document.querySelector('[data-table=wide]').parentElement;"
        "box.scrollIntoView(); box.scrollLeft = 900; box.scrollTop = 20"
    )
    place = """const box = document.querySelector('[data-table=wide]').parentElement;
        const seen = (one) => { const [a, b] = [one.getBoundingClientRect(), box.getBoundingClientRect()];
            return [Math.round(a.left - b.left), Math.round(a.right - b.left)] };
        const [group, name] = box.querySelectorAll('thead th');
        return { scrolled: box.scrollLeft, width: box.clientWidth, caption: seen(box.querySelector('caption')),
            head: seen(name), row: seen(box.querySelector('tbody th')), site: seen(box.querySelector('td.group')) }"""
    found = opened.execute_script(place)
    assert found["scrolled"] == 900
    assert found["row"] == found["head"]
    assert 0 <= found["row"][0] < found["row"][1] <= 0.45 * found["width"]
    assert found["caption"][0] >= 0
    assert found["caption"][1] <= found["width"] + 2
    assert (found["site"][0] >= 0) == (width > 700)
    over = """const { left, top } = document.querySelector('[data-table=wide] tbody th').getBoundingClientRect();
        return document.elementFromPoint(left + 8, top + 8).tagName"""
    assert opened.execute_script(over) in ("TH", "EM")


def test_paper_shows_every_column(opened: Any) -> None:
    """Within 277 mm, an A4 page lying with its margins, nothing is wider than its box."""
    resized(opened, 1047)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        found = opened.execute_script(
            "return [...document.querySelectorAll('.box')].map((one) => [one.scrollWidth - one.clientWidth, "
            "one.querySelector('thead tr:last-child th:last-child').getBoundingClientRect().right])"
        )
        whole = opened.execute_script("return document.documentElement.scrollWidth")
        moved = opened.execute_script(
            "return [...document.querySelectorAll('.box :is(th, td, caption)')]"
            ".filter((one) => getComputedStyle(one).position !== 'static').length"
        )
        pdf = opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(found) == 3
    assert all(wider <= 0 and right <= 1047 for wider, right in found)
    assert whole <= 1047
    assert moved == 0
    boxes = {tuple(map(float, one.split())) for one in re.findall(rb"/MediaBox \[([\d. ]+)\]", base64.b64decode(pdf))}
    assert [tuple(map(round, one)) for one in boxes] == [(0, 0, 842, 595)]


def test_hostile_texts_stand_on_the_page_as_text(opened: Any) -> None:
    body = opened.find_element("tag name", "body").text
    for text in (made_report.BOLD, made_report.IMG, made_report.PATH, "</script><script>window.broken = true</script>"):
        assert text in body
    assert opened.execute_script("return document.querySelectorAll('b, [onerror], [onload], img[src=x]').length") == 0
    choose(opened, "Method", made_report.BOLD, in_section("units"))
    assert_soon(opened, SHOWN, [f"{made_report.BOLD}: Atom 0"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_everybody_can_use_it_at_every_width_and_in_both_colours(
    opened: Any, address: str, width: int, scheme: str
) -> None:
    resized(opened, width)
    coloured(opened, scheme)
    visit(opened, f"{address}#us=shapes&b=topk_sae~42~42&bu=8&marks=1&jd=disagree&jm=topk_sae")
    opened.execute_script("document.querySelectorAll('summary').forEach((one) => one.click())")
    assert_soon(opened, "return document.querySelectorAll('.pair pre').length > 0", True)
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(251, 250, 248)") == (scheme == "light")
    sizes = "const { scrollWidth, clientWidth } = document.documentElement; return [scrollWidth, clientWidth]"
    scrolled, seen = opened.execute_script(sizes)
    assert scrolled <= seen <= width
    opened.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    quickly = "{ resultTypes: ['violations'], elementRef: false }"
    found = opened.execute_async_script(f"axe.run({quickly}).then(arguments[arguments.length - 1])")
    assert len(found["passes"]) > 20
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found["violations"]] == []


def test_the_switch_overrides_the_system(opened: Any) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    choose(opened, "Colours", "dark")
    assert_soon(opened, ground, "rgb(21, 23, 26)")
    choose(opened, "Colours", "as the system")
    assert_soon(opened, ground, "rgb(251, 250, 248)")

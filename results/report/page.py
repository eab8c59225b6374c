"""The page as text: one HTML file whose style, script, figures and data are all in it.

What the browser may do is said in the page itself: nothing is loaded, and no script or style runs but the two whose
hashes stand there (Content Security Policy Level 3, section 2.3). Figures are images that hold their file, so that no
style or identifier of one reaches another. Texts are escaped by Jinja, data by `Views.json`.
"""

import base64
import hashlib
from html import escape
from pathlib import Path
from typing import Final

from results.report.content import Drawing, Report
from results.report.data import data_uri

_HERE: Final = Path(__file__).parent
_STYLES: Final = ("page.css", "explorer.css")
_SCRIPTS: Final = ("state.js", "sheets.js", "explorer.js", "judged.js", "start.js")


def page(report: Report) -> str:
    """The page; ends with a line end. The same report gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"boxed": lambda html, title: Markup(boxed(html, title)), "picture": picture}
    style = "\n".join(_text(name) for name in _STYLES)
    script = '"use strict";\n(() => {\n' + "\n".join(_text(name) for name in _SCRIPTS) + "})();\n"
    html = environment.get_template("page.html").render(
        report=report,
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(report.views.json()),
    )
    # a path may hold bytes that are no text; they are shown as what they are
    return html.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


def policy(style: str, script: str) -> str:
    """What the browser may load and run: these two texts, and images that the page holds itself."""
    return (
        f"default-src 'none'; script-src '{_hashed(script)}'; style-src '{_hashed(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def boxed(html: str, title: str) -> str:
    """A table with a box around it that scrolls sideways by itself, by keyboard too."""
    # `<` in a text of the table is written `&lt;`, so these are the table's own
    opened = html.replace("<table", f'<div class="box" role="group" aria-label="{escape(title)}" tabindex="0"><table')
    return opened.replace("</table>", "</table></div>")


def picture(drawing: Drawing) -> str:
    """A figure as the address of an image."""
    return data_uri(drawing.svg, "image/svg+xml")


def _hashed(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")

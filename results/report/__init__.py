"""The report of a run: one page that needs nothing beside itself, to be read, filtered and explored offline.

`Report` is what stands on it, `page` makes it. The page's text is `page.html`, its looks are in `*.css` and what it
does in `*.js`, all of them beside this file; nothing is fetched when it is made nor when it is read.
"""

from results.report.content import Drawing, Report, Sheet, Trouble
from results.report.data import Views, size_of, size_of_metrics, size_of_picture
from results.report.page import page

__all__ = ["Drawing", "Report", "Sheet", "Trouble", "Views", "page", "size_of", "size_of_metrics", "size_of_picture"]

"""What the page's script reads: units, their exemplars and judged pairs as JSON, within a number of bytes.

The names in the JSON are short, since there is one of each for thousands of atoms; `explorer.js` and `judged.js` are
their only readers.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from results.explored import Atom, Explored, Judged, Pictures, Shown, Unit

_PNG: Final = b"\x89PNG"
_UNSAFE: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@dataclass(frozen=True)
class Views:
    """What can be explored.

    Attributes:
        pictures: Images, one entry for each site; without files where they are not to be on the page.
        explored: Methods with their units.
        judged: Presentations with their replies.
    """

    pictures: Sequence[Pictures] = ()
    explored: Sequence[Explored] = ()
    judged: Sequence[Judged] = ()

    def json(self) -> str:
        """All of it as JSON in ASCII without `<`, `>` and `&`, so that no text in it can end a `<script>`."""
        return _ascii(
            {
                "pictures": {one.site: _pictures(one) for one in self.pictures},
                "explored": [_explored(one) for one in self.explored],
                "judged": [_judged(one) for one in self.judged],
            }
        )


def fitted(views: Views, max_bytes: int) -> tuple[Views, list[str]]:
    """As much of the views as fits, and what was left out, in words.

    Judged pairs go first, then units, both evenly spaced in their order; images that nothing shows any more go with
    what showed them.

    Args:
        views: All that there is.
        max_bytes: Of the JSON.
    """
    if len(views.json()) <= max_bytes:
        return views, []
    n_judged, n_units = len(views.judged), sum(len(one.units) for one in views.explored)
    for share in (0.5, 0.25, 0.125, 0.0625, 0.0):
        smaller = _referenced(Views(views.pictures, views.explored, _evenly(views.judged, share)))
        if len(smaller.json()) <= max_bytes:
            return smaller, [_left(len(smaller.judged), n_judged, "judged pairs", max_bytes)]
    said = [_left(0, n_judged, "judged pairs", max_bytes)] if n_judged else []
    share = 1.0
    while share > 1 / 512:
        share /= 2
        explored = [_thinned(one, share) for one in views.explored]
        smaller = _referenced(Views(views.pictures, explored))
        if len(smaller.json()) <= max_bytes:
            n_left = sum(len(one.units) for one in explored)
            return smaller, [*said, _left(n_left, n_units, "units", max_bytes)]
    return Views(), [*said, _left(0, n_units, "units", max_bytes)]


def _left(n: int, n_all: int, what: str, max_bytes: int) -> str:
    """How much of something is on the page, and how to have more."""
    return f"{n} of {n_all} {what} fit into what --max-mb leaves ({max_bytes / 1e6:.1f} MB); a larger one shows more"


def _evenly(all_of: Sequence[Any], share: float) -> list[Any]:
    """That share of a sequence, evenly spaced; at least one unless the share is zero."""
    n = min(len(all_of), max(1, int(len(all_of) * share))) if share else 0
    return [all_of[index * len(all_of) // n] for index in range(n)]


def _thinned(one: Explored, share: float) -> Explored:
    """The same method with a share of its units."""
    units: tuple[Unit, ...] = tuple(_evenly(one.units, share))
    said = f"{len(units)} of the {len(one.units)} units that were looked at, evenly spaced, for the page's size"
    left = "; ".join(filter(None, (one.left_out, said)))
    return replace(one, units=units, left_out=left)


def _referenced(views: Views) -> Views:
    """The same views with those images alone that something shows."""
    used: dict[str, set[int]] = {}
    for one in views.explored:
        for unit in one.units:
            for atom in (*([unit.whole] if unit.whole else []), *unit.parts):
                used.setdefault(one.site, set()).update(atom.images)
    for pair in views.judged:
        used.setdefault(pair.site, set()).update(pair.first.images, pair.second.images)
    pictures = [
        replace(
            one,
            files={index: file for index, file in one.files.items() if index in used.get(one.site, ())},
            captions={index: text for index, text in one.captions.items() if index in used.get(one.site, ())},
        )
        for one in views.pictures
    ]
    return Views(pictures, views.explored, views.judged)


def _ascii(value: Any) -> str:
    """JSON in ASCII that HTML reads as nothing but text."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char, escaped in _UNSAFE.items():
        text = text.replace(char, escaped)
    return text


def data_uri(file: bytes, kind: str = "") -> str:
    """A file as an address that holds it.

    Args:
        file: The file.
        kind: Its media type; PNG or JPEG, as its first bytes say, if not given.
    """
    kind = kind or ("image/png" if file.startswith(_PNG) else "image/jpeg")
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def _pictures(one: Pictures) -> dict[str, Any]:
    return {
        "files": {str(index): data_uri(file) for index, file in one.files.items()},
        "captions": {str(index): text for index, text in one.captions.items()},
        "grid": one.grid,
        "prefix": one.n_prefix,
        "licence": one.licence,
    }


def _explored(one: Explored) -> dict[str, Any]:
    names = list(dict.fromkeys(name for unit in one.units for atom in _atoms(unit) for name in atom.scores))
    return {
        "site": one.site,
        "label": one.label,
        "method": one.method,
        "t": one.token_seed,
        "i": one.init_seed,
        "n_units": one.n_units,
        "n_atoms": one.n_atoms,
        "left": one.left_out,
        "scores": names,
        "units": [_unit(unit, names) for unit in one.units],
    }


def _atoms(unit: Unit) -> list[Atom]:
    return [*([unit.whole] if unit.whole else []), *unit.parts]


def _unit(unit: Unit, names: Sequence[str]) -> dict[str, Any]:
    return {
        "u": unit.index,
        "w": _atom(unit.whole, names) if unit.whole else None,
        "p": [_atom(part, names) for part in unit.parts],
    }


def _atom(atom: Atom, names: Sequence[str]) -> dict[str, Any]:
    return {
        "i": atom.index,
        "x": atom.images,
        "t": atom.positions,
        "c": [_short(code) for code in atom.codes],
        "s": [_short(atom.scores.get(name)) for name in names],
        "m": atom.n_members,
        "d": [(index, _short(weight)) for index, weight in atom.inputs],
        "n": atom.n_inputs,
    }


def _short(value: float | None) -> float | None:
    """Four digits, as many as anybody reads."""
    return None if value is None else float(f"{value:.4g}")


def _judged(one: Judged) -> dict[str, Any]:
    return {
        "site": one.site,
        "panel": one.panel,
        "kind": one.kind,
        "id": one.id,
        "t": one.token_seed,
        "a": _shown(one.first),
        "b": _shown(one.second),
        "replies": [
            {"judge": it.judge, "choice": it.choice, "a": it.reasoning_a, "b": it.reasoning_b, "text": it.text}
            for it in one.replies
        ],
        "consensus": one.consensus,
    }


def _shown(one: Shown) -> dict[str, Any]:
    return {"label": one.label, "atom": one.atom, "x": one.images}

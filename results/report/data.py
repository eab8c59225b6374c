"""What the page's script reads: units, their exemplars and judged pairs as JSON, and what each of them takes.

The names in the JSON are short, since there is one of each for thousands of atoms; `explorer.js` and `judged.js` are
their only readers.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from results.explored import Atom, Explored, Judged, Pictures, Shown, Unit
from results.tables import heading_of

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
                "metrics": {name: _metric(name) for name in scores_of(*self.explored)},
            }
        )


def size_of(one: Unit | Judged, metrics: Sequence[str] = ()) -> int:
    """Bytes that a unit or a judged pair takes in the JSON of `Views`, at most, images apart.

    Args:
        one: The unit or the pair.
        metrics: Of which atoms beside it have scores.
    """
    value = _judged(one) if isinstance(one, Judged) else _unit(one, metrics)
    return len(_ascii(value)) + 1


def size_of_metrics(names: Iterable[str]) -> int:
    """Bytes that it takes there to say what these metrics are called, at most."""
    return len(_ascii({name: _metric(name) for name in names}))


def size_of_picture(index: int, file: bytes, caption: str) -> int:
    """Bytes that an image takes there with its caption, at most."""
    return len(_ascii({str(index): data_uri(file)})) + len(_ascii({str(index): caption}))


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
    names = scores_of(one)
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


def scores_of(*explored: Explored) -> list[str]:
    """The metrics of which an atom of these has a score, in the order in which they come."""
    units = (unit for one in explored for unit in one.units)
    return list(dict.fromkeys(name for unit in units for atom in _atoms(unit) for name in atom.scores))


def _metric(name: str) -> dict[str, str]:
    heading, unit = heading_of(name)
    return {"heading": heading, "unit": unit}


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
        "rung": one.rung,
        "right": one.right,
    }


def _shown(one: Shown) -> dict[str, Any]:
    return {"label": one.label, "atom": one.atom, "x": one.images}

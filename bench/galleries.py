"""Galleries: a unit with its parts, and a judged pair with what was said of it, as pictures to print.

The paper's Figures 3 and 11 to 17: the sixteen images that drive a unit most in a yellow frame, beside them the four of
each part in pink ones. Figure 6: two grids of nine, below them every judge's choice and reasons.

Frames and marks are told apart by place and brightness too, not by colour alone (Okabe and Ito 2008). The same
arguments give the same pixels.
"""

import importlib.util
import io
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from PIL import Image, ImageDraw, ImageFont

from results.explored import Atom, Judged, Pictures, Reply, Unit
from results.tables import heading_of

CELL: Final = 72
"""Pixels of a side of an image in a unit's gallery."""
PAIR_CELL: Final = 112
"""The same in a judged pair."""
FRAME, GAP, MARGIN = 4, 14, 20
N_PARENT, N_PART, N_ALONE = 16, 4, 9
PARTS_IN_ROW: Final = 4
MOST_PARTS: Final = 48
MOST_TEXT: Final = 600
"""Characters of a reply's text that are printed."""
YELLOW, PINK, BLUE, INK, GREY = "#F0C800", "#CC79A7", "#0072B2", "#1A1A1A", "#5A5A5A"
DPI: Final = 200
Form = Literal["png", "pdf"]


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of all text: DejaVu, which comes with matplotlib and knows most alphabets."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise RuntimeError(
            "matplotlib: got none; expected the package, whose fonts are used; install the project again"
        )
    fonts = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(
        str(fonts / f"DejaVuSans{'-Bold' * bold}.ttf"), size, layout_engine=ImageFont.Layout.BASIC
    )


@dataclass(frozen=True, eq=False)
class Seen:
    """Images as they are drawn.

    Attributes:
        images: By index into the evaluation split.
        pictures: Where the tokens of the site are; its own files are not looked at.
        is_marked: Whether the token that drives an atom is framed in its image.
    """

    images: Mapping[int, Image.Image]
    pictures: Pictures
    is_marked: bool = False

    def cell(self, image: int, position: int | None, side: int) -> Image.Image:
        """One image as a square, with the token's patch framed where that is asked for."""
        square = self.images[image].convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        box = None if position is None or not self.is_marked else box_of(self.pictures, position, side)
        if box is not None:
            pen = ImageDraw.Draw(square)
            pen.rectangle(box, outline="black", width=3)
            pen.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline="white", width=1)
        return square

    def grid(self, atom: Atom, n: int, colour: str, side: int = CELL) -> Image.Image:
        """The first images of an atom, a square of them, in a frame."""
        return self.square(atom.images[:n], atom.positions, n, colour, side)

    def square(
        self, images: Sequence[int], positions: Sequence[int], n: int, colour: str, side: int = CELL
    ) -> Image.Image:
        """Some images row by row in a square of n cells, in a frame; cells without an image stay white."""
        in_row = round(n**0.5)
        whole = Image.new("RGB", (in_row * side + 2 * FRAME,) * 2, colour)
        whole.paste("white", (FRAME, FRAME, FRAME + in_row * side, FRAME + in_row * side))
        for number, image in enumerate(images[:n]):
            row, column = divmod(number, in_row)
            position = positions[number] if number < len(positions) else None
            whole.paste(self.cell(image, position, side), (FRAME + column * side, FRAME + row * side))
        return whole


def box_of(pictures: Pictures, position: int, side: int) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom pixel of a token's patch, all inside it, in a square image; None of no patch."""
    place = pictures.place_of(position)
    if place is None or pictures.grid is None:
        return None
    (row, column), (height, width) = place, pictures.grid
    left, top = column * side // width, row * side // height
    return left, top, max(left, (column + 1) * side // width - 1), max(top, (row + 1) * side // height - 1)


def unit_gallery(
    unit: Unit, seen: Seen, *, title: str, remarks: Sequence[str] = (), score: str = "ms_score"
) -> Image.Image:
    """A unit, left, and its parts, right; an atom of a method that splits no units by itself.

    Args:
        unit: What is shown.
        seen: Its images.
        title: In bold above it.
        remarks: Below it, a line or more each.
        score: The metric that is printed of every atom.
    """
    blocks = []
    if unit.whole is not None:
        blocks.append((seen.grid(unit.whole, N_PARENT, YELLOW), words_of(f"unit {unit.index}", unit.whole, score)))
    shown = unit.parts[:MOST_PARTS]
    if unit.index is None:
        side = [(seen.grid(one, N_ALONE, PINK), words_of(f"atom {one.index}", one, score)) for one in shown]
    else:  # parts are counted from 1, as in the report; atoms are what programs call them
        side = [
            (seen.grid(one, N_PART, PINK), words_of(f"part {number}, atom {one.index}", one, score))
            for number, one in enumerate(shown, start=1)
        ]
    in_row = PARTS_IN_ROW if len(side) <= 4 * PARTS_IN_ROW else 2 * PARTS_IN_ROW
    rows = [beside(side[start : start + in_row]) for start in range(0, len(side), in_row)]
    body = [beside(blocks)] if blocks else []
    body += [stacked(rows)] if rows else []
    left_out = [f"{len(shown)} of {len(unit.parts)} parts are shown."] if len(shown) < len(unit.parts) else []
    whole = in_a_row(body, 2 * GAP)
    width = max(whole.width, 8 * CELL)
    below = [text(one, width) for one in [*left_out, *remarks]]
    return page([*titled(title, width), whole, *([stacked(below, 2)] if below else [])])


def words_of(name: str, atom: Atom, score: str) -> list[str]:
    """What is printed of an atom: what it is called, how large its cluster is, what a metric says of it."""
    said = [name]
    if atom.n_members is not None:
        said.append(f"cluster of {atom.n_members}")
    if score in atom.scores:
        value = atom.scores[score]
        said.append(f"{heading_of(score)[0]} {'–' if value is None else f'{value:.1f} %'}")
    return said


def pair_gallery(pair: Judged, seen: Seen, *, remarks: Sequence[str] = ()) -> Image.Image:
    """Both grids of a presentation side by side, below them what every judge chose and said, and the consensus."""
    sides = []
    for letter, one in (("A", pair.first), ("B", pair.second)):
        grid = seen.square(one.images, (), 9, YELLOW if pair.consensus == letter else GREY, PAIR_CELL)
        sides.append((letter, one, grid))
    width = sides[0][2].width
    heads = [f"{letter}: {one.label}{'' if one.atom is None else f', atom {one.atom}'}" for letter, one, _ in sides]
    top = in_a_row(
        [stacked([text(head, width, 15, bold=True), grid], 4) for head, (_, _, grid) in zip(heads, sides, strict=True)],
        2 * GAP,
    )
    rows: list[Image.Image] = [*titled(f"{pair.site}, panel {pair.panel}, pair {pair.id[:12]}", top.width), top]
    rows += [replied(reply, width, top.width) for reply in pair.replies]
    said = "no majority" if pair.consensus is None else f"{pair.consensus} is the more coherent grid"
    rows.append(text(f"Consensus: {said}.", top.width, 15, bold=True))
    kind = "vision-language models" if pair.kind == "llm_panel" else "a proxy panel, no vision-language models"
    return page([*rows, stacked([text(one, top.width) for one in [f"Judged by {kind}.", *remarks]], 2)])


def replied(reply: Reply, width: int, whole: int) -> Image.Image:
    """What one judge chose and said, under the grids."""
    head = text(f"{reply.judge} chooses {reply.choice or 'neither'}", whole, 13, bold=True, colour=BLUE)
    said = text(cut(reply.text) or "(no text)", whole)
    if reply.reasoning_a or reply.reasoning_b:
        said = in_a_row([text(cut(one), width) for one in (reply.reasoning_a, reply.reasoning_b)], 2 * GAP)
    return stacked([head, said], 2)


def cut(said: str) -> str:
    """A text of at most `MOST_TEXT` characters, with a remark where more is left out."""
    n = len(said)
    return said if n <= MOST_TEXT else f"{said[:MOST_TEXT]} ... (cut here; {n - MOST_TEXT:,} more characters)"


def printable(said: str) -> str:
    """The text with every run of white space as one space, and a sign in the place of what cannot be printed."""
    plain = "".join(
        "\ufffd" if unicodedata.category(one) in ("Cc", "Cs", "Co", "Cn") and not one.isspace() else one for one in said
    )
    return " ".join(plain.split())


def lines_of(said: str, width: int, size: int, bold: bool) -> list[str]:
    """The text in lines of at most so many pixels; a word that is longer than a line is broken."""
    written, lines = font(size, bold), [""]
    for word in printable(said).split(" "):
        both = f"{lines[-1]} {word}".lstrip()
        if written.getlength(both) <= width:
            lines[-1] = both
            continue
        lines += [""] * bool(lines[-1])
        for sign in word:
            if lines[-1] and written.getlength(lines[-1] + sign) > width:
                lines.append("")
            lines[-1] += sign
    return lines


def text(said: str, width: int, size: int = 12, *, bold: bool = False, colour: str = INK) -> Image.Image:
    """A text in lines of at most so many pixels."""
    lines, height = lines_of(said, width, size, bold), round(1.35 * size)
    picture = Image.new("RGB", (width, height * len(lines) + 2), "white")
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((0, number * height), line, font=font(size, bold), fill=colour)
    return picture


def titled(title: str, width: int) -> list[Image.Image]:
    """The heading of a page."""
    return [text(title, width, 16, bold=True)]


def beside(blocks: Sequence[tuple[Image.Image, Sequence[str]]]) -> Image.Image:
    """Grids in a row, each with lines of its own below it."""
    return in_a_row(
        [stacked([grid, *(text(line, grid.width, 11, colour=INK) for line in words)], 3) for grid, words in blocks], GAP
    )


def in_a_row(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Pictures from left to right, tops in line."""
    width = sum(one.width for one in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (max(1, width), max((one.height for one in pictures), default=1)), "white")
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width + gap
    return whole


def stacked(pictures: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Pictures from top to bottom, left sides in line."""
    height = sum(one.height for one in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (max(one.width for one in pictures), max(1, height)), "white")
    top = 0
    for one in pictures:
        whole.paste(one, (0, top))
        top += one.height + gap
    return whole


def page(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows on a white page with a margin."""
    body = stacked(rows)
    whole = Image.new("RGB", (body.width + 2 * MARGIN, body.height + 2 * MARGIN), "white")
    whole.paste(body, (MARGIN, MARGIN))
    return whole


def file_of(picture: Image.Image, form: Form) -> bytes:
    """The picture as a file; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    if form == "pdf":
        never = time.gmtime(0)
        picture.save(
            buffer, "PDF", resolution=DPI, quality=92, creationDate=never, modDate=never, producer="eludebench"
        )
    else:
        picture.save(buffer, "PNG", optimize=True, dpi=(DPI, DPI))
    return buffer.getvalue()

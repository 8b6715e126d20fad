"""All pictures on one sheet, each with its caption. The one file of the command that needs Pillow."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

_COLUMNS = 5
_CELL = (192, 128)
_GAP = 16
_LINE = 14
_FONT_SIZE = 11
_PAPER, _INK, _FAINT = "#f6f4ef", "#22201c", "#7a746a"


class NotThatPictureError(Exception):
    """The bytes are not a PNG of the size that was asked for."""


@dataclass(frozen=True, slots=True)
class Print:
    """One picture on the sheet, with the two lines under it."""

    picture: Image.Image
    title: str
    caption: str


def read_png(data: bytes, width: int, height: int) -> Image.Image:
    """Decode the whole picture. Raises NotThatPictureError."""
    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's words for a broken PNG
        raise NotThatPictureError(f"{len(data)} bytes that are not a whole PNG") from error
    if picture.size != (width, height):
        raise NotThatPictureError(f"a PNG of {picture.width}x{picture.height} pixels instead of {width}x{height}")
    return picture.convert("RGB")


def contact_sheet(prints: Sequence[Print]) -> Image.Image:
    """Lay the prints out in rows of five, each centred in a cell of 192x128 pixels and scaled down to fit."""
    step_x, step_y = _CELL[0] + _GAP, _CELL[1] + 2 * _LINE + _GAP
    columns = min(_COLUMNS, len(prints))
    rows = -(-len(prints) // _COLUMNS)
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for index, item in enumerate(prints):
        x, y = _GAP + index % _COLUMNS * step_x, _GAP + index // _COLUMNS * step_y
        picture = item.picture.copy()
        picture.thumbnail(_CELL)
        sheet.paste(picture, (x + (_CELL[0] - picture.width) // 2, y + _CELL[1] - picture.height))
        for line, (text, colour) in enumerate(((item.title, _INK), (item.caption, _FAINT))):
            while draw.textlength(text, font) > _CELL[0]:
                text = text.removesuffix("…")[:-1].rstrip() + "…"
            width = draw.textlength(text, font)
            draw.text((x + (_CELL[0] - width) / 2, y + _CELL[1] + 2 + line * _LINE), text, colour, font)
    return sheet

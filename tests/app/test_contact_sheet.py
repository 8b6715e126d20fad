"""The demo's sheet, and its eye for a picture that is not one."""

import io

import pytest
from PIL import Image

from app.cli.contact_sheet import NotThatPictureError, Print, contact_sheet, read_png


def encoded(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 32), 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def test_a_whole_png_of_the_right_size_is_read() -> None:
    assert read_png(encoded(), 64, 32).size == (64, 32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded()[:-200], "not a whole PNG"),
        (encoded("JPEG"), "not a whole PNG"),
        (b"", "0 bytes that are not a whole PNG"),
    ],
)
def test_what_is_not_a_whole_png_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(NotThatPictureError, match=message):
        read_png(data, 64, 32)


def test_another_size_is_refused() -> None:
    with pytest.raises(NotThatPictureError, match="64x32 pixels instead of 128x128"):
        read_png(encoded(), 128, 128)


def test_the_sheet_has_five_columns_and_shortens_long_captions() -> None:
    picture = Image.new("RGB", (300, 100), "red")
    sheet = contact_sheet([Print(picture, "title", "a caption far longer than its picture is wide " * 4)] * 6)
    assert sheet.size == (5 * (192 + 16) + 16, 2 * (128 + 28 + 16) + 16)
    # Scaled down to its cell's width, at the cell's bottom; nothing is drawn over the gap beside it.
    assert sheet.getpixel((16, 16 + 127)) == (255, 0, 0)
    assert {sheet.getpixel((x, y)) for x in range(209, 223) for y in range(150, 172)} == {(246, 244, 239)}

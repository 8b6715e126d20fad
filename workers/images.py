"""Pixels to image files, with the parameters that drew them inside."""

import io
import json
from collections.abc import Mapping

from PIL import Image
from PIL.ExifTags import IFD, Base
from torch import Tensor

from app.jobs.schema import OutputFormat
from workers.png import encode_png

_EXIF_MAX_BYTES = 60_000
_DEFAULT_QUALITY = {OutputFormat.JPEG: 90, OutputFormat.WEBP: 90}


def encode_image(
    pixels: Tensor, output_format: OutputFormat, quality: int | None, parameters: Mapping[str, object], infotext: str
) -> bytes:
    """Encode (height, width, 3) uint8 pixels on the CPU.

    `parameters` is kept as JSON: in PNG's text chunk `darkroom`, in JPEG's and WebP's EXIF image description.
    `infotext` tells the same to other programs: in PNG's text chunk `parameters`, in EXIF's user comment.
    `quality`, 0 to 100, is for JPEG and WebP; PNG loses nothing.
    """
    array = pixels.numpy()
    text = json.dumps(parameters)
    if output_format is OutputFormat.PNG:
        return encode_png(array, {"parameters": infotext, "darkroom": text})
    comment = b"UNICODE\0" + infotext.encode("utf-16-be")
    if output_format is OutputFormat.JPEG and len(text) + len(comment) > _EXIF_MAX_BYTES:
        # A JPEG segment ends at 64 KB: long prompts stay out, what they were drawn with stays in.
        text = json.dumps({k: v for k, v in parameters.items() if k not in ("prompt", "negative_prompt")})
        comment = b""
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[Base.ImageDescription] = text
    if comment:
        exif.get_ifd(IFD.Exif)[Base.UserComment] = comment
    buffer = io.BytesIO()
    image.save(
        buffer,
        output_format.upper(),
        quality=_DEFAULT_QUALITY[output_format] if quality is None else quality,
        exif=exif,
    )
    return buffer.getvalue()

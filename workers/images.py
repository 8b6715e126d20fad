"""Pixels to image files, with the parameters that drew them inside."""

import io
import json
from collections.abc import Mapping

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from app.jobs.schema import OutputFormat

# zlib level 1: at level 6 a 1024x1024 photograph takes about five times as long on one core, for a few percent of size.
_PNG_COMPRESS_LEVEL = 1
_EXIF_IMAGE_DESCRIPTION = 0x010E
_EXIF_MAX_CHARS = 60_000
_DEFAULT_QUALITY = {OutputFormat.JPEG: 90, OutputFormat.WEBP: 90}


def encode_image(
    pixels: Tensor, output_format: OutputFormat, quality: int | None, parameters: Mapping[str, object]
) -> bytes:
    """Encode (height, width, 3) uint8 pixels.

    `parameters` is kept as JSON: in PNG's text chunk `darkroom`, in JPEG's and WebP's EXIF image description.
    `quality`, 0 to 100, is for JPEG and WebP; PNG loses nothing.
    """
    image = Image.fromarray(pixels.numpy())
    text = json.dumps(parameters)
    if output_format is OutputFormat.JPEG and len(text) > _EXIF_MAX_CHARS:
        # A JPEG segment ends at 64 KB: long prompts stay out, what they were drawn with stays in.
        text = json.dumps({k: v for k, v in parameters.items() if k not in ("prompt", "negative_prompt")})
    buffer = io.BytesIO()
    if output_format is OutputFormat.PNG:
        info = PngInfo()
        info.add_itxt("darkroom", text)
        image.save(buffer, "PNG", pnginfo=info, compress_level=_PNG_COMPRESS_LEVEL)
    else:
        exif = image.getexif()
        exif[_EXIF_IMAGE_DESCRIPTION] = text
        image.save(
            buffer,
            output_format.upper(),
            quality=_DEFAULT_QUALITY[output_format] if quality is None else quality,
            exif=exif,
        )
    return buffer.getvalue()

"""Latents as colours without the VAE: one linear map for every pixel of the latent, from its channels to RGB.

What a VAE keeps in a latent's pixel is mostly the mean colour of the pixels it stands for, so that the map shows the
picture an eighth as wide: enough to watch it develop, at next to no cost.
"""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat
from torch import Tensor

from workers.pipelines.pixels import to_pixels

FILE_NAME = "latent_rgb.json"  # beside a VAE's weights

RGB = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class LatentRGB(BaseModel):
    """RGB, from -1 to 1, is `latent @ factors + bias`: factors C x 3, bias 3.

    The latent is as the transformer sees it: after the VAE's shift_factor and scaling_factor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: tuple[RGB, ...]
    bias: RGB

    def show(self, latents: Tensor) -> Tensor:
        """Show (N, C, h, w) latents as (N, h, w, 3) uint8 on the CPU."""
        factors = torch.tensor(self.factors, device=latents.device)
        bias = torch.tensor(self.bias, device=latents.device)
        return to_pixels(torch.einsum("nchw,cd->ndhw", latents.float(), factors) + bias[:, None, None])


def read_latent_rgb(file: Path, channels: int) -> LatentRGB:
    """Read the map that came with a VAE of so many latent channels. Raises OSError and ValueError."""
    latent_rgb = LatentRGB.model_validate_json(file.read_bytes())
    if len(latent_rgb.factors) != channels:
        raise ValueError(f"it maps {len(latent_rgb.factors)} channels, and the VAE has {channels}")
    return latent_rgb


# Both were published with ComfyUI, which applies them to the same latents, before it undoes scale and shift:
# `latent_rgb_factors` and `latent_rgb_factors_bias` of comfy/latent_formats.py at commit 75399d7, classes Flux and SD3.
# https://github.com/Comfy-Org/ComfyUI/blob/75399d78ddcc01f46f9b94521b29f1fe8a90ed53/comfy/latent_formats.py
FLUX = LatentRGB(
    factors=(
        (-0.0346, 0.0244, 0.0681),
        (0.0034, 0.0210, 0.0687),
        (0.0275, -0.0668, -0.0433),
        (-0.0174, 0.0160, 0.0617),
        (0.0859, 0.0721, 0.0329),
        (0.0004, 0.0383, 0.0115),
        (0.0405, 0.0861, 0.0915),
        (-0.0236, -0.0185, -0.0259),
        (-0.0245, 0.0250, 0.1180),
        (0.1008, 0.0755, -0.0421),
        (-0.0515, 0.0201, 0.0011),
        (0.0428, -0.0012, -0.0036),
        (0.0817, 0.0765, 0.0749),
        (-0.1264, -0.0522, -0.1103),
        (-0.0280, -0.0881, -0.0499),
        (-0.1262, -0.0982, -0.0778),
    ),
    bias=(-0.0329, -0.0718, -0.0851),
)
SD3 = LatentRGB(
    factors=(
        (-0.0922, -0.0175, 0.0749),
        (0.0311, 0.0633, 0.0954),
        (0.1994, 0.0927, 0.0458),
        (0.0856, 0.0339, 0.0902),
        (0.0587, 0.0272, -0.0496),
        (-0.0006, 0.1104, 0.0309),
        (0.0978, 0.0306, 0.0427),
        (-0.0042, 0.1038, 0.1358),
        (-0.0194, 0.0020, 0.0669),
        (-0.0488, 0.0130, -0.0268),
        (0.0922, 0.0988, 0.0951),
        (-0.0278, 0.0524, -0.0542),
        (0.0332, 0.0456, 0.0895),
        (-0.0069, -0.0030, -0.0810),
        (-0.0596, -0.0465, -0.0293),
        (-0.1448, -0.1463, -0.1189),
    ),
    bias=(0.2394, 0.2135, 0.1925),
)

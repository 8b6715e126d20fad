"""Parameters as one readable text, in the convention of AUTOMATIC1111's web UI, which viewers and galleries read.

The prompt, the negative prompt, then one line of "Name: value" pairs:
https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/v1.10.1/modules/infotext_utils.py
"""

from app.catalog.catalog import Guidance
from app.jobs.schema import ImageJob


def infotext(job: ImageJob, seed: int, guidance: Guidance) -> str:
    """Tell how the image of `seed` was drawn. `guidance` is what the model takes `guidance_scale` for."""
    settings: dict[str, object] = {
        "Steps": job.num_inference_steps,
        "Sampler": "Euler",
        # Forge, which brought Flux to that convention, tells the two scales of a distilled model apart like this.
        **(
            {"CFG scale": job.guidance_scale}
            if guidance is Guidance.CFG
            else {"CFG scale": job.true_cfg_scale, "Distilled CFG Scale": job.guidance_scale}
        ),
        "Seed": seed,
        "Size": f"{job.width}x{job.height}",
        "Model": job.model,
    }
    lines = [job.prompt]
    if job.negative_prompt:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)

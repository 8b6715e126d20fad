"""The GPUs of this machine, found without torch: one for each worker."""

import subprocess
from collections.abc import Mapping, Sequence

_PATIENCE_S = 20.0  # the driver starts up at the first question


def free_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Name the GPUs that workers may be pinned to, as CUDA_VISIBLE_DEVICES has them.

    Those that CUDA_VISIBLE_DEVICES allows where it is set, parts of GPUs (MIG) too, else all GPUs that the driver's own
    `nvidia-smi` lists. None where DARKROOM_DEVICE says what workers use: the CPU, or one GPU of that name.
    """
    if environment.get("DARKROOM_DEVICE", "auto") not in ("auto", "cuda"):
        return ()
    found = _listed(environment)
    allowed = environment.get("CUDA_VISIBLE_DEVICES")
    if not found or allowed is None:
        return found
    names = [name.strip() for name in allowed.split(",")]
    # CUDA itself sees nothing from the first name on that is none.
    end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
    return tuple(names[:end])


def pinned(gpus: Sequence[str], worker: int) -> dict[str, str]:
    """What to tell a worker, counted from 0, so that it sees one GPU. Workers beyond the GPUs share them in turn."""
    return {"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]} if gpus else {}


def _listed(environment: Mapping[str, str]) -> tuple[str, ...]:
    """`GPU 0: NVIDIA H100 ... (UUID: GPU-...)` is a line of nvidia-smi; parts of a GPU have lines below, indented."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 - it is where the driver's package puts it
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()  # no driver, or none that answers
    return tuple(line[4:].partition(":")[0] for line in listing.splitlines() if line.startswith("GPU "))

"""What the figures were measured on and with."""

import os
import platform
import shutil
import subprocess
import sys
from typing import Any

import diffusers
import torch
import transformers


def describe_machine(device: torch.device) -> dict[str, Any]:
    machine: dict[str, Any] = {
        "device": "CPU, tiny models",
        "host_cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine |= {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return machine


def command_line() -> str:
    return " ".join(["python -m tests.benchmarks.gpu", *sys.argv[1:]])


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None

"""Which GPUs workers are pinned to, as a real program named nvidia-smi tells it."""

from pathlib import Path

import pytest

from app.cli.gpus import free_gpus, pinned

FOUR = "".join(f"GPU {n}: NVIDIA H100 80GB HBM3 (UUID: GPU-{n})\n" for n in range(4))
WITH_PARTS = "GPU 0: NVIDIA A100 (UUID: GPU-0)\n  MIG 1g.5gb     Device  0: (UUID: MIG-0)\n"


def machine(folder: Path, says: str, variables: dict[str, str], code: int = 0) -> dict[str, str]:
    """An environment in which nvidia-smi says this."""
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] || exit 9\nprintf "{says}"\nexit {code}\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", **variables}


@pytest.mark.parametrize(
    ("says", "variables", "gpus"),
    [
        (FOUR, {}, ("0", "1", "2", "3")),
        (FOUR, {"CUDA_VISIBLE_DEVICES": "2,3"}, ("2", "3")),
        (FOUR, {"CUDA_VISIBLE_DEVICES": "GPU-3, GPU-1"}, ("GPU-3", "GPU-1")),
        (FOUR, {"CUDA_VISIBLE_DEVICES": ""}, ()),
        (FOUR, {"CUDA_VISIBLE_DEVICES": "1,-1,2"}, ("1",)),
        (FOUR, {"DARKROOM_DEVICE": "auto"}, ("0", "1", "2", "3")),
        (FOUR, {"DARKROOM_DEVICE": "cuda"}, ("0", "1", "2", "3")),
        (FOUR, {"DARKROOM_DEVICE": "cuda:1"}, ()),
        (FOUR, {"DARKROOM_DEVICE": "cpu"}, ()),
        (WITH_PARTS, {}, ("0",)),
        ("No devices were found\n", {}, ()),
    ],
)
def test_the_gpus_are_those_that_the_driver_and_the_user_name(
    tmp_path: Path, says: str, variables: dict[str, str], gpus: tuple[str, ...]
) -> None:
    assert free_gpus(machine(tmp_path, says, variables)) == gpus


def test_a_driver_that_fails_has_no_gpus(tmp_path: Path) -> None:
    assert free_gpus(machine(tmp_path, "NVIDIA-SMI has failed\n", {}, code=9)) == ()


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert free_gpus({"PATH": str(tmp_path)}) == ()
    assert free_gpus({"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,1"}) == ()


def test_workers_take_gpus_in_turn() -> None:
    assert [pinned(("0", "GPU-3"), worker).get("CUDA_VISIBLE_DEVICES") for worker in range(3)] == ["0", "GPU-3", "0"]
    assert pinned((), 0) == {}

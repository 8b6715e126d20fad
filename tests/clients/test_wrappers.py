"""LiteLLM and LangChain, unmodified, in an environment of their own. Slow to install: make test-clients

They bring hundreds of megabytes, a plugin that every pytest would load, and versions that diffusers' own exclude.
"""

import base64
import json
import os
import subprocess
import venv
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.conftest import PROMPT
from tests.clients.pictures import same

HERE = Path(__file__).parent

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]
    subprocess.run([*install, str(HERE / "requirements.txt")], check=True)
    return python


def run(python: Path, client: str, server: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, HERE / "wrappers.py", client, server, PROMPT],
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # or it asks the network for prices
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_litellm(python: Path, server: str, picture: bytes) -> None:
    said = run(python, "litellm", server)
    assert same(base64.b64decode(said["b64_json"][0]), picture), "seed and num_inference_steps arrive at the top level"
    assert [httpx.get(url).headers["content-type"] for url in said["urls"]] == ["image/png"] * 2
    assert "there is no model 'dall-e-3' here; known: tiny-flux-schnell" in said["refusal"]


def test_langchain(python: Path, server: str) -> None:
    said = run(python, "langchain", server)
    assert [httpx.get(url).headers["content-type"] for url in said["urls"]] == ["image/png"] * 2
    assert "there is no model 'dall-e-3' here; known: tiny-flux-schnell" in said["refusal"]

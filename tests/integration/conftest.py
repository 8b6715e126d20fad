"""What a worker in a test works with: a bundled model and a store."""

from pathlib import Path

import pytest
import torch

from app.catalog.catalog import Catalog
from app.jobs.store import ImageStore, open_store
from tests.integration.worker_lab import MODEL
from workers.engine.pipeline import StepPipeline
from workers.pipelines.load import load_pipeline


@pytest.fixture(scope="module")
def pipeline() -> StepPipeline:
    torch.set_num_threads(1)
    return load_pipeline(Catalog.load()[MODEL], None, torch.device("cpu"), torch.float32)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return open_store(f"file://{tmp_path}/images")

"""`python -m workers.weights`: fetch the weights of DARKROOM_MODELS into the Hugging Face cache, and end.

So that workers may run where the hub cannot be reached: with HF_HUB_OFFLINE=1 they read the same cache.
"""

import sys

from pydantic import ValidationError

from app.catalog.catalog import Catalog, CatalogError
from app.jobs.environment import wrong_settings
from workers.pipelines.load import ModelLoadError, check_folder, find_folder
from workers.settings import WorkerSettings


def main() -> int:
    try:
        settings = WorkerSettings()
        for name, card in Catalog.load().only(list(settings.model_folders)).items():
            folder = settings.model_folders[name] or find_folder(card)
            check_folder(card, folder)
            sys.stdout.write(f"{name}: {folder}\n")
    except ValidationError as error:
        sys.stderr.writelines(f"weights: {problem}\n" for problem in wrong_settings(error))
        return 2
    except (CatalogError, ModelLoadError) as error:
        sys.stderr.write(f"weights: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

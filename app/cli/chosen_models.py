"""Which models `--model` asks for."""

from collections.abc import Sequence
from pathlib import Path

from app.catalog.catalog import Catalog, UnknownModelError
from app.cli.errors import UsageError


def bundled_models(catalog: Catalog) -> tuple[str, ...]:
    """The models whose weights come with Darkroom."""
    return tuple(name for name, card in catalog.items() if card.source.package is not None)


def chosen_models(given: Sequence[str], catalog: Catalog) -> dict[str, Path | None]:
    """Read NAME or NAME=/folder: model -> folder of its weights, None for its card's. Raises UsageError.

    Nothing given means the bundled models.
    """
    chosen: dict[str, Path | None] = {}
    for entry in given or bundled_models(catalog):
        name, equals, folder_name = entry.partition("=")
        try:
            catalog[name]
        except UnknownModelError as error:
            raise UsageError(f"--model: {error}") from error
        if name in chosen:
            raise UsageError(f"--model: {name} is given twice")
        folder = Path(folder_name).expanduser().absolute() if equals else None
        if folder is not None and not (folder / "model_index.json").is_file():
            raise UsageError(f"--model: {folder} holds no diffusers model (there is no model_index.json in it)")
        if folder is not None and "," in str(folder):
            raise UsageError(f"--model: the folder {folder} has a comma in its name, which separates models")
        chosen[name] = folder
    return chosen

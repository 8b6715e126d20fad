"""What a prompt states about a scene; what it leaves out is for the model, or chance, to choose."""

from dataclasses import dataclass

from workers.tiny.scenes import Background, Figure, Scene

RELATIONS = ("to the left of", "to the right of", "above", "below")


@dataclass(frozen=True, slots=True)
class FigureFacts:
    """One figure as far as it is described; None is not stated."""

    shape: str
    colour: str | None = None
    size: str | None = None
    row: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """A scene as far as it is described, figures in the order of mention; `relation` is of the first to the second."""

    figures: tuple[FigureFacts, ...]
    background: Background | None = None
    relation: str | None = None


NOTHING = Facts(figures=())


def relation_of(first: Figure, second: Figure) -> str:
    """Say how the first figure lies to the second; sideways where both would be true."""
    if first.column != second.column:
        return "to the left of" if first.column < second.column else "to the right of"
    return "above" if first.row < second.row else "below"


def facts_of(scene: Scene, sizes: bool = True, places: bool = True, background: bool = True) -> Facts:
    """State a scene: its shapes and colours always, the rest as asked, and the relation of two figures."""
    return Facts(
        figures=tuple(
            FigureFacts(
                figure.shape,
                figure.colour,
                figure.size if sizes else None,
                figure.row if places else None,
                figure.column if places else None,
            )
            for figure in scene.figures
        ),
        background=scene.background if background else None,
        relation=relation_of(*scene.figures) if len(scene.figures) == 2 else None,
    )

"""The tiny world: scenes, their captions, and the facts that captions state."""

import itertools
import random
import re
from pathlib import Path

import pytest

from app.cli.demo_requests import DEMO_REQUESTS
from workers.tiny.captions import REMARKS, some_facts, write_caption, write_captions
from workers.tiny.facts import Facts, FigureFacts, facts_of
from workers.tiny.parsing import parse_prompt
from workers.tiny.prompts import held_out_prompts
from workers.tiny.scenes import COLOURS, FILLS, SHAPES, SIZES, Background, Figure, draw_scene

README = Path(__file__).parents[3] / "README.md"


def test_the_world_has_all_that_it_promises() -> None:
    assert (len(SHAPES), len(COLOURS), len(SIZES)) == (8, 10, 3)
    rng = random.Random(0)
    scenes = [draw_scene(rng) for _ in range(3000)]
    figures = [figure for scene in scenes for figure in scene.figures]
    assert {(figure.row, figure.column) for figure in figures} == set(itertools.product(range(3), range(3)))
    assert {figure.shape for figure in figures} == set(SHAPES)
    assert {figure.colour for figure in figures} == set(COLOURS)
    assert {figure.size for figure in figures} == set(SIZES)
    assert {scene.background.fill for scene in scenes} == set(FILLS)
    assert {len(scene.figures) for scene in scenes} == {1, 2}


def test_figures_are_apart_and_in_no_colour_of_the_background() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        scene = draw_scene(rng)
        assert len({figure.shape for figure in scene.figures}) == len(scene.figures)
        assert len({(figure.row, figure.column) for figure in scene.figures}) == len(scene.figures)
        colours = {scene.background.colour, scene.background.second}
        assert not colours & {figure.colour for figure in scene.figures}


def test_orange_is_not_drawn_on_a_gradient_from_red_to_yellow() -> None:
    rng = random.Random(0)
    gradients = [scene for scene in (draw_scene(rng) for _ in range(6000)) if scene.background.fill == "gradient"]
    through_orange = [s for s in gradients if {s.background.colour, s.background.second} == {"red", "yellow"}]
    assert through_orange
    assert all(figure.colour != "orange" for scene in through_orange for figure in scene.figures)


def test_held_out_combinations_are_never_drawn_for_training() -> None:
    rng = random.Random(1)
    training = {figure for _ in range(5000) for figure in draw_scene(rng).figures}
    evaluation = {figure for prompt in held_out_prompts(500, figures=1) for figure in prompt.scene.figures}
    assert len(evaluation) > 150
    assert not training & evaluation
    everything = [Figure(*attributes) for attributes in itertools.product(SHAPES, COLOURS, SIZES, range(3), range(3))]
    assert 0.1 < sum(figure.held_out for figure in everything) / len(everything) < 0.15


def test_held_out_prompts_repeat_and_state_everything() -> None:
    prompts = held_out_prompts(200, figures=2)
    assert prompts == held_out_prompts(200, figures=2)
    assert prompts[:50] == held_out_prompts(50, figures=2)
    for prompt in prompts:
        assert prompt.facts == facts_of(prompt.scene)
        assert prompt.facts.background is not None
        assert prompt.facts.relation is not None


def test_a_caption_states_its_facts_and_no_others() -> None:
    """Read back by a parser that knows nothing of how the caption was written."""
    rng = random.Random(0)
    for _ in range(2000):
        facts = some_facts(draw_scene(rng), rng)
        caption = write_caption(facts, rng)
        assert parse_prompt(caption) == facts, caption


def test_captions_are_repeatable_and_go_from_terse_to_long() -> None:
    captions = list(write_captions(seed=0, count=500))
    assert captions == list(write_captions(seed=0, count=500))
    assert captions != list(write_captions(seed=1, count=500))
    assert len(set(captions)) > 450
    assert min(map(len, captions)) < 25
    assert max(map(len, captions)) > 500
    for words in ("to the left of", "above", "bottom right", "gradient", "striped", "center", "centre"):
        assert any(words in caption for caption in captions), words


@pytest.mark.parametrize(
    ("prompt", "facts"),
    [
        (
            "a small red ring on the left on a blue background",
            Facts((FigureFacts("ring", "red", "small", 1, 0),), Background("plain", "blue", None)),
        ),
        ("Red circle", Facts((FigureFacts("circle", "red"),))),
        (
            "a big pink heart at the top right on a black and white striped background",
            Facts((FigureFacts("heart", "pink", "large", 0, 2),), Background("striped", "black", "white")),
        ),
        (
            "a green triangle left of a white circle",
            Facts((FigureFacts("triangle", "green"), FigureFacts("circle", "white")), relation="to the left of"),
        ),
        ("a ring on the left", Facts((FigureFacts("ring", row=1, column=0),))),
        ("a red circle and a ring", Facts((FigureFacts("circle", "red"), FigureFacts("ring")))),
        (
            "a red circle and a blue square. the square is to the left of the circle",
            Facts((FigureFacts("circle", "red"), FigureFacts("square", "blue")), relation="to the right of"),
        ),
        ("a red ring on a blurred background", Facts((FigureFacts("ring", "red"),))),
        ("a red ring on a black and white background, blue to green", Facts((FigureFacts("ring", "red"),))),
        ("ring in the upper left", Facts((FigureFacts("ring", row=0, column=0),))),
        ("a teal star, lower-right", Facts((FigureFacts("star", "teal", None, 2, 2),))),
        ("a red heart-shaped star", Facts((FigureFacts("star"),))),
        ("a blue \t\n ring", Facts((FigureFacts("ring", "blue"),))),
        ("a ring, middle left", Facts((FigureFacts("ring", row=1, column=0),))),
        ("a ring, bottom centre", Facts((FigureFacts("ring", row=2, column=1),))),
        ("a ring at the left bottom", Facts((FigureFacts("ring", row=2, column=0),))),
        (
            "on the left a red ring, on the right a blue star",
            Facts((FigureFacts("ring", "red", None, 1, 0), FigureFacts("star", "blue", None, 1, 2))),
        ),
        ("two red circles", Facts(())),
        ("a horse in the rain", Facts(())),
        ("", Facts(())),
    ],
)
def test_prompts_that_people_write_are_understood(prompt: str, facts: Facts) -> None:
    assert parse_prompt(prompt) == facts


def test_what_the_demo_asks_for_is_understood() -> None:
    """Or the demo would find nothing missing in any picture."""
    for request in DEMO_REQUESTS:
        facts = parse_prompt(request.prompt)
        assert len(facts.figures) == sum(shape in request.prompt for shape in SHAPES), request.prompt
        assert all(figure.colour for figure in facts.figures), request.prompt
        assert (facts.background is not None) == ("background" in request.prompt), request.prompt
        assert all(figure.row is not None for figure in facts.figures), request.prompt


def test_what_the_readme_asks_for_states_where_it_is() -> None:
    """Or the first picture a newcomer sees would most likely be a wrong one."""
    prompts = re.findall(r'(?:"prompt": |generate |ring\.png )"([^"]+)"', README.read_text(encoding="utf-8"))
    assert len(prompts) == 3
    for prompt in prompts:
        (figure,) = parse_prompt(prompt).figures
        assert figure.row is not None, prompt


def test_relations_are_true_of_their_scenes() -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(500):
        scene = draw_scene(rng, figures=2)
        first, second = scene.figures
        relation = facts_of(scene).relation
        holds = {
            "to the left of": first.column < second.column,
            "to the right of": first.column > second.column,
            "above": first.row < second.row,
            "below": first.row > second.row,
        }
        assert relation is not None
        assert holds[relation]
        seen.add(relation)
    assert len(seen) == 4


def test_no_remark_speaks_of_the_scene() -> None:
    """A word of the world among the words about other things would be a fact that nobody states."""
    world = {
        *SHAPES,
        *COLOURS,
        *SIZES,
        "left",
        "right",
        "top",
        "bottom",
        "above",
        "below",
        "over",
        "under",
        "background",
    }
    for remark in REMARKS:
        assert not world & set(re.findall(r"\w+", remark.lower())), remark

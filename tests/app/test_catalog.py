"""The catalog: built-in models, models files that are wrong, and sizes."""

from pathlib import Path

import pytest

from app.catalog.catalog import Catalog, CatalogError, Family, Guidance, ModelCard, Range, UnknownModelError

CARDS = list(Catalog.load().values())
GOOD = """
[ring]
family = "flux"
description = "Rings"
license = "Apache-2.0"
guidance = "embedded"
source = { repo = "org/ring", revision = "abc" }
[ring.limits]
size_multiple = 16
min_side = 64
max_side = 512
max_pixels = 131072
num_inference_steps = { min = 1, max = 50 }
guidance_scale = { min = 0, max = 10 }
max_sequence_length = 256
[ring.defaults]
width = 128
height = 128
num_inference_steps = 20
guidance_scale = 3.5
max_sequence_length = 128
[ring.recommended]
num_inference_steps = { min = 16, max = 28 }
guidance_scale = { min = 1.5, max = 5 }
pixels = { min = 4096, max = 65536 }
"""


def load(tmp_path: Path, text: str | bytes) -> Catalog:
    file = tmp_path / "models.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Catalog.load(file)


def within(inner: Range, outer: Range) -> bool:
    return inner.min in outer and inner.max in outer


def test_the_built_in_models_are_these() -> None:
    assert list(Catalog.load()) == [
        "tiny-flux-schnell",
        "tiny-flux-dev",
        "tiny-sd3",
        "flux-schnell",
        "flux-dev",
        "sd3-medium",
        "sd3.5-medium",
        "sd3.5-large",
        "sd3.5-large-turbo",
    ]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_built_in_card_recommends_nothing_that_it_refuses(card: ModelCard) -> None:
    limits, recommended = card.limits, card.recommended
    assert card.size_problems(card.defaults.width, card.defaults.height) == []
    assert within(recommended.num_inference_steps, limits.num_inference_steps)
    assert within(recommended.guidance_scale, limits.guidance_scale)
    assert recommended.pixels.max <= limits.max_pixels
    assert recommended.pixels.min >= limits.min_side**2
    assert card.defaults.width * card.defaults.height in recommended.pixels
    assert card.defaults.num_inference_steps in recommended.num_inference_steps
    assert card.defaults.guidance_scale in recommended.guidance_scale
    assert limits.num_inference_steps.min >= 1
    assert limits.min_side % limits.size_multiple == limits.max_side % limits.size_multiple == 0


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_built_in_card_pins_its_weights(card: ModelCard) -> None:
    if card.name.startswith("tiny-"):
        assert (card.source.package, card.source.repo) == ("workers.tiny", None)
    else:
        assert card.source.repo is not None
        assert len(card.source.revision) == 40
        assert int(card.source.revision, 16)
    assert card.guidance is Guidance.CFG if card.family is Family.SD3 else card.guidance is not Guidance.CFG


def test_a_models_file_is_read(tmp_path: Path) -> None:
    card = load(tmp_path, GOOD)["ring"]
    assert (card.name, card.family, card.limits.max_pixels) == ("ring", Family.FLUX, 131072)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("[ring]", "[ring", "cannot read the models file", id="not TOML"),
        pytest.param("[ring]", "[ring]\n[ring]", "cannot read the models file", id="a table twice"),
        pytest.param(GOOD, "", "has no models", id="empty"),
        pytest.param(GOOD, "ring = 1", "model 'ring' in ", id="a number for a table"),
        pytest.param('license = "Apache-2.0"', "", "license: Field required", id="a field missing"),
        pytest.param("max_side = 512", "", "limits.max_side: Field required", id="a limit missing"),
        pytest.param("[ring]", "[ring]\nprice = 1", "price: Extra inputs are not permitted", id="an unknown field"),
        pytest.param('"flux"', '"dalle"', "family: Input should be 'flux' or 'sd3'", id="an unknown family"),
        pytest.param('repo = "org/ring", ', "", "either `repo`, or `package` and `folder`", id="weights nowhere"),
        pytest.param('repo = "org/ring"', 'package = "a"', "either `repo`, or `package` and `folder`", id="no folder"),
        pytest.param(
            'repo = "org/ring"',
            'repo = "org/ring", package = "a", folder = "b"',
            "either `repo`, or `package` and `folder`",
            id="weights twice",
        ),
        pytest.param(
            "{ min = 16, max = 28 }", "{ min = 28, max = 16 }", "min 28.0 is above max 16.0", id="upside down"
        ),
        pytest.param("{ min = 0, max = 10 }", "{ min = 0, max = inf }", "limits.guidance_scale.max: ", id="no end"),
        pytest.param("size_multiple = 16", "size_multiple = 0", "limits.size_multiple: ", id="multiples of zero"),
        pytest.param("width = 128", "width = 130", "width 130 is not a multiple of 16", id="a default size"),
        pytest.param("width = 128", "width = 576", "width 576 is outside 64 to 512", id="a default size too big"),
        pytest.param("steps = 20", "steps = 51", "default num_inference_steps", id="a default of steps"),
        pytest.param("guidance_scale = 3.5", "guidance_scale = 11", "default guidance_scale", id="a default guidance"),
        pytest.param("length = 128", "length = 257", "default max_sequence_length", id="a default length"),
    ],
)
def test_a_wrong_models_file_is_refused_in_words(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert said in message
    assert str(tmp_path / "models.toml") in message
    assert "pydantic" not in message
    assert "\n" not in message


def test_a_models_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot read the models file"):
        Catalog.load(tmp_path / "nowhere.toml")
    with pytest.raises(CatalogError, match="cannot read the models file"):
        Catalog.load(tmp_path)
    with pytest.raises(CatalogError, match="cannot read the models file"):
        load(tmp_path, b"\xff\xfe")


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    catalog = Catalog.load().only(["tiny-sd3", "flux-dev"])
    assert list(catalog) == ["tiny-sd3", "flux-dev"]
    assert "tiny-flux-dev" not in catalog
    with pytest.raises(UnknownModelError) as caught:
        catalog["flux-dv"]
    assert str(caught.value) == "unknown model 'flux-dv'; known models: tiny-sd3, flux-dev"
    with pytest.raises(UnknownModelError, match="unknown model 'tiny-flux-dev'"):
        catalog.only(["tiny-flux-dev"])


@pytest.mark.parametrize(
    ("width", "height", "problems"),
    [
        (128, 128, []),
        (64, 512, []),
        (512, 256, []),  # exactly max_pixels
        (130, 128, ["width 130 is not a multiple of 16; try 128 or 144"]),
        (128, 511, ["height 511 is not a multiple of 16; try 496 or 512"]),
        (65, 65, [f"{side} 65 is not a multiple of 16; try 64 or 80" for side in ("width", "height")]),
        (63, 128, ["width 63 is outside 64 to 512 pixels"]),
        (128, 513, ["height 513 is outside 64 to 512 pixels"]),
        (0, -16, ["width 0 is outside 64 to 512 pixels", "height -16 is outside 64 to 512 pixels"]),
        (512, 272, ["512x272 is 139264 pixels; the limit is 131072"]),
    ],
)
def test_size_problems(tmp_path: Path, width: int, height: int, problems: list[str]) -> None:
    assert load(tmp_path, GOOD)["ring"].size_problems(width, height) == problems


def test_a_size_to_try_is_within_the_limits(tmp_path: Path) -> None:
    card = load(tmp_path, GOOD.replace("min_side = 64", "min_side = 60").replace("max_side = 512", "max_side = 508"))
    assert card["ring"].size_problems(61, 500) == [
        "width 61 is not a multiple of 16; try 64",
        "height 500 is not a multiple of 16; try 496",
    ]

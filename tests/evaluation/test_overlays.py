"""Cases to look at: the right ones are chosen, contours lie where the masks are, pictures stay small."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from preceptor.data.case import Case
from preceptor.evaluation.overlays import PATH_LIMIT, choose, contour, eight_bit, embed, showcase
from preceptor.recipe_data import DataRecipe


def test_best_median_and_ten_worst_are_chosen_once_each() -> None:
    dice = {f"c{i:02}": i / 30 for i in range(30)}
    chosen = choose(dice, dict.fromkeys(dice, True))
    assert chosen[:3] == [("Best", "c29"), ("Median", "c14"), ("Worst", "c00")]
    assert len(chosen) == 12
    assert len({case for _, case in chosen}) == 12


def test_a_case_in_two_places_is_shown_once_with_both_names() -> None:
    assert choose({"a": 0.9, "b": 0.5}, {"a": True, "b": True}) == [("Best, worst 2", "a"), ("Median, worst", "b")]


def test_an_empty_case_left_empty_is_not_called_the_best() -> None:
    chosen = choose({"a": 1.0, "b": 0.8, "c": 0.2}, {"b": True, "c": True})
    assert chosen[0] == ("Best, worst 2", "b")


def test_a_contour_runs_along_the_edge_of_its_mask() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True
    moves = np.array(re.findall(r"-?\d+", contour(mask, (40, 60))), float).reshape(-1, 2)
    numbers = moves.cumsum(axis=0) / 4
    assert numbers.min(axis=0) == pytest.approx([30, 10], abs=0.6)
    assert numbers.max(axis=0) == pytest.approx([50, 20], abs=0.6)
    assert contour(np.zeros((5, 5), bool), (5, 5)) == ""


def test_a_contour_of_noise_stays_small() -> None:
    noise = np.random.default_rng(0).random((1000, 1000)) < 0.5
    assert len(contour(noise, (360, 360))) <= PATH_LIMIT


def test_specks_and_noise_give_paths_that_can_be_parsed() -> None:
    """A renderer stops at the first fault of a path: every ring is M, moves in pairs, z."""
    mask = np.random.default_rng(0).random((400, 400)) < 0.05
    ring = r"M\d+ \d+(?:h2v2h-2|l-?\d+(?: |(?=-))-?\d+(?:(?: |(?=-))-?\d+(?: |(?=-))-?\d+)+)z"
    for size in ((400, 400), (100, 100)):
        assert re.fullmatch(f"(?:{ring})+", contour(mask, size, limit=10**7))


def test_a_mask_that_touches_every_border_has_a_contour() -> None:
    assert contour(np.ones((9, 9), bool), (9, 9)).startswith("M")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
def test_pictures_of_any_depth_become_visible(dtype: type) -> None:
    ramp = (np.arange(10_000).reshape(100, 100) - 500).clip(0).astype(dtype)
    shown = eight_bit(ramp)
    assert shown.dtype == np.uint8
    assert (shown.min(), shown.max()) == (0, 255)


def test_an_embedded_picture_is_a_small_jpeg_of_the_given_size() -> None:
    uri = embed(np.random.default_rng(0).integers(0, 255, (700, 500, 3), dtype=np.uint8), (360, 257))
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (257, 360)


def test_a_picture_that_is_gone_leaves_a_note_and_no_error(tmp_path) -> None:
    shown = showcase(Case("a", tmp_path / "a.png", report="text"), "Best", DataRecipe(), {}, {})
    assert shown.image == ""
    assert "a.png" in shown.trouble

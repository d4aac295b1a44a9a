"""Claims about the random changes of training cases."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.data.augmentation import (
    Draw,
    _turned_and_flipped,
    augment_batch,
    draw_augmentation,
    report_variants,
    respect_report,
    shown_report,
)
from preceptor.data.case import Case
from preceptor.recipe_data import AugmentRecipe

LEFT = "Unilateral pulmonary infection, one infected area, upper left lung."
EVERYTHING = AugmentRecipe(
    zoom=[0.5, 0.8, 1.3], rotate=20, scale=0.2, shift=0.1, flip_horizontal=0.5, flip_vertical=0.5, transpose=0.5,
    brightness=0.2, contrast=0.2, gamma=0.3, noise=0.1,
)  # fmt: skip


def pair(cases: int = 1, channels: int = 2, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)
    image = torch.randn(cases, channels, side, side, generator=numbers)
    return image, (image[:, 0] > 0).to(torch.uint8)


def blob(down: int, right: int, side: int = 33) -> torch.Tensor:
    image = torch.zeros(1, 1, side, side)
    image[0, 0, down - 1 : down + 2, right - 1 : right + 2] = 1.0
    return image


def centre(image: torch.Tensor) -> tuple[int, int]:
    mass = image[0, 0] / image[0, 0].sum()
    down = (mass.sum(1) * torch.arange(mass.shape[0])).sum()
    right = (mass.sum(0) * torch.arange(mass.shape[1])).sum()
    return round(float(down)), round(float(right))


def test_draws_depend_on_seed_epoch_and_case_alone() -> None:
    reference = draw_augmentation(EVERYTHING, 3, 5, 7)
    assert draw_augmentation(EVERYTHING, 3, 5, 7) == reference
    others = [draw_augmentation(EVERYTHING, *at) for at in ((4, 5, 7), (3, 6, 7), (3, 5, 8), (3, 7, 5), (-1, 5, 7))]
    assert len({reference, *others}) == 6


def test_switching_one_change_on_leaves_the_others_as_they_were() -> None:
    for case in range(20):
        full, less = (
            draw_augmentation(r, 0, 0, case) for r in (EVERYTHING, EVERYTHING.model_copy(update={"noise": 0}))
        )
        assert (full.angle, full.zoom, full.gamma, full.flip_vertical) == (
            less.angle, less.zoom, less.gamma, less.flip_vertical
        )  # fmt: skip


def test_draws_have_the_ranges_and_frequencies_of_the_recipe() -> None:
    draws = [draw_augmentation(AugmentRecipe(flip_horizontal=0.3, rotate=10, gamma=0.5), 0, 0, n) for n in range(2000)]
    zoomed = [draw.zoom for draw in draws if draw.zoom != 1.0]
    assert 0.07 < len(zoomed) / 2000 < 0.13
    assert min(zoomed) >= 0.95
    assert max(zoomed) <= 1.2
    assert 0.26 < np.mean([draw.flip_horizontal for draw in draws]) < 0.34
    angles = [draw.angle for draw in draws]
    assert -10 <= min(angles) < -9 < 9 < max(angles) <= 10
    assert min(draw.gamma for draw in draws) >= 1 / 1.5
    assert max(draw.gamma for draw in draws) <= 1.5
    assert not any(draw.flip_vertical or draw.transpose or draw.noise or draw.contrast for draw in draws)


def test_a_case_that_draws_nothing_comes_out_bit_by_bit_and_inputs_stay() -> None:
    image, mask = pair(2)
    before = image.clone()
    changed, labels = augment_batch(image, mask, [Draw(), Draw(zoom=1.1, noise=0.3, flip_vertical=True)])
    assert torch.equal(changed[0], image[0])
    assert labels is not None
    assert torch.equal(labels[0], mask[0])
    assert not torch.equal(changed[1], image[1])
    assert torch.equal(image, before)


@pytest.mark.parametrize("draw", [Draw(flip_horizontal=True), Draw(flip_vertical=True), Draw(transpose=True)])
def test_flips_and_transpositions_are_exact_and_undo_themselves(draw: Draw) -> None:
    image, mask = pair()
    once = augment_batch(image, mask, [draw])
    assert not torch.equal(once[0], image)
    twice = augment_batch(*once, [draw])
    assert torch.equal(twice[0], image)
    assert twice[1] is not None
    assert torch.equal(twice[1], mask)


def test_axes_and_signs_are_as_documented() -> None:
    middle = 16
    assert centre(augment_batch(blob(8, 10), None, [Draw(flip_horizontal=True)])[0]) == (8, 22)
    assert centre(augment_batch(blob(8, 10), None, [Draw(flip_vertical=True)])[0]) == (24, 10)
    assert centre(augment_batch(blob(8, 10), None, [Draw(transpose=True)])[0]) == (10, 8)
    assert centre(augment_batch(blob(8, 10), None, [Draw(shift=(4 / 33, -3 / 33))])[0]) == (12, 7)
    # counter-clockwise by a right angle: from the right of the middle to above it
    assert centre(augment_batch(blob(middle, 24), None, [Draw(angle=90)])[0]) == (8, middle)
    assert centre(augment_batch(blob(middle, 20), None, [Draw(zoom=2.0)])[0])[1] == 24


def test_rotation_keeps_angles_on_images_that_are_not_square() -> None:
    image = torch.zeros(1, 1, 33, 65)
    image[0, 0, 15:18, 39:42] = 1.0
    assert centre(augment_batch(image, None, [Draw(angle=90)])[0]) == (8, 32)


def test_image_and_mask_stay_together_and_labels_stay_labels() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[0, 20:40, 10:30], mask[0, 30:50, 35:55] = 1, 3
    draw = Draw(angle=15, zoom=1.2, shift=(0.05, -0.1), flip_horizontal=True)
    for interpolation in ("bilinear", "bicubic"):
        image, labels = augment_batch((mask == 3).float()[:, None], mask, [draw], interpolation)
        assert labels is not None
        assert labels.dtype == torch.uint8
        assert set(labels.unique().tolist()) == {0, 1, 3}
        assert ((image[:, 0] > 0.5) == (labels == 3)).float().mean() > 0.99


def test_edges_are_padded_with_the_nearest_pixel() -> None:
    changed, _ = augment_batch(torch.full((1, 1, 8, 8), 5.0), None, [Draw(zoom=0.5, angle=30)], "bicubic")
    assert torch.allclose(changed, torch.tensor(5.0), atol=1e-4)


def test_brightness_contrast_gamma_and_noise_act_on_the_image_alone() -> None:
    image, mask = pair(side=64)
    brighter, labels = augment_batch(image, mask, [Draw(brightness=0.5)])
    assert torch.allclose(brighter, image + 0.5)
    assert labels is not None
    assert torch.equal(labels, mask)
    harder, _ = augment_batch(image, mask, [Draw(contrast=0.5)])
    assert torch.allclose(harder - harder.mean(), 1.5 * (image - image.mean()), atol=1e-5)
    darker, _ = augment_batch(image, mask, [Draw(gamma=2.0)])
    assert torch.allclose(darker.max(), image.max())
    assert torch.allclose(darker.min(), image.min())
    assert darker.mean() < image.mean()
    noisy, _ = augment_batch(image, mask, [Draw(noise=0.25, noise_seed=1)])
    assert abs(float((noisy - image).std()) - 0.25) < 0.02
    assert torch.allclose(noisy[0, 0] - image[0, 0], noisy[0, 1] - image[0, 1], atol=1e-6)


def test_a_case_is_changed_in_the_same_way_in_any_batch() -> None:
    image, mask = pair(4, side=32)
    draws = [draw_augmentation(EVERYTHING, 1, 2, number) for number in range(4)]
    together = augment_batch(image, mask, draws)
    for number in range(4):
        alone = augment_batch(image[number : number + 1], mask[number : number + 1], draws[number : number + 1])
        assert torch.equal(alone[0][0], together[0][number])


def test_a_flipped_image_has_a_flipped_report() -> None:
    flipped = shown_report(Draw(flip_horizontal=True), LEFT)
    assert "upper right lung" in flipped
    assert "lower left lung" in shown_report(Draw(flip_vertical=True), LEFT)
    assert shown_report(Draw(zoom=1.1), LEFT) == LEFT
    assert shown_report(Draw(flip_horizontal=True), None) == ""


def test_forbid_drops_flips_of_cases_whose_report_has_the_axis() -> None:
    draw = Draw(flip_horizontal=True, flip_vertical=True)
    assert not respect_report(draw, LEFT, "forbid").permutes
    assert respect_report(draw, LEFT, "rewrite") == draw
    for words in ("The nuclei are evenly distributed.", "", None):
        assert respect_report(draw, words, "forbid") == draw


def test_flips_that_no_words_can_follow_are_dropped_also_when_reports_are_rewritten() -> None:
    lobe = "Consolidation of the middle lobe."
    kept = respect_report(Draw(flip_horizontal=True, flip_vertical=True), lobe, "rewrite")
    assert (kept.flip_horizontal, kept.flip_vertical) == (False, True)


def test_cases_whose_report_names_a_side_are_never_transposed() -> None:
    for rule in ("rewrite", "forbid"):
        assert not respect_report(Draw(transpose=True), LEFT, rule).transpose
        assert respect_report(Draw(transpose=True), "The nuclei are evenly distributed.", rule).transpose


def test_cases_whose_report_names_a_side_are_not_turned_onto_their_side() -> None:
    for rule in ("rewrite", "forbid"):
        assert respect_report(Draw(angle=100.0, zoom=1.1), LEFT, rule) == Draw(zoom=1.1)
        assert respect_report(Draw(angle=-30.0), LEFT, rule).angle == -30.0
        assert respect_report(Draw(angle=100.0), "The nuclei are evenly distributed.", rule).angle == 100.0


def test_report_variants_are_all_that_a_loader_may_show() -> None:
    words = [LEFT, "Bilateral pulmonary infection, two infected areas, all left lung and lower right lung.", None]
    cases = [Case(f"c{n}", Path("x.png"), report=report) for n, report in enumerate(words)]
    for rule in ("rewrite", "forbid"):
        recipe = EVERYTHING.model_copy(update={"reports": rule})
        shown = {
            shown_report(respect_report(draw_augmentation(recipe, 0, epoch, n), case.report, rule), case.report)
            for epoch in range(40)
            for n, case in enumerate(cases)
        }
        variants = report_variants(cases, recipe)
        assert shown == set(variants)
        assert len(variants) == len(set(variants)) == (9 if rule == "rewrite" else 3)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("across", [True, False])
def test_quarter_turns_and_flips_are_exact_and_come_after_the_others(quarters: int, across: bool) -> None:
    image, mask = pair()
    for first in (Draw(), Draw(flip_horizontal=True), Draw(transpose=True, flip_vertical=True)):
        before, _ = augment_batch(image, mask, [first])
        turned = torch.rot90(before, quarters, dims=(-2, -1)).flip(-1 if across else -2)
        assert torch.equal(augment_batch(image, mask, [_turned_and_flipped(first, quarters, across)])[0], turned)


def test_transunets_augmentation_turns_half_of_the_cases_and_rotates_half_of_the_others() -> None:
    recipe = AugmentRecipe(zoom=[0, 1, 1], rot_flip=0.5, rotate=20, rotate_share=0.5)
    draws = [draw_augmentation(recipe, 0, 0, n) for n in range(4000)]
    rotated = [draw for draw in draws if draw.angle]
    assert 0.22 < len(rotated) / 4000 < 0.28
    assert not any(draw.permutes for draw in rotated)
    assert all(-20 <= draw.angle < 20 for draw in rotated)
    # a turn and a flip together are one of the four reflections of a square, each as likely
    kinds = Counter((draw.transpose, draw.flip_horizontal, draw.flip_vertical) for draw in draws)
    nothing = kinds.pop((False, False, False)) / 4000
    assert 0.47 < nothing < 0.53
    assert set(kinds) == {(False, True, False), (False, False, True), (True, False, False), (True, True, True)}
    assert all(0.1 < count / 4000 < 0.15 for count in kinds.values())


def test_draws_without_quarter_turns_are_those_of_earlier_versions() -> None:
    draw = draw_augmentation(EVERYTHING, 3, 5, 7)
    assert (draw.flip_horizontal, draw.flip_vertical, draw.transpose) == (True, False, False)
    assert (draw.zoom, draw.angle, draw.noise_seed) == (0.9236408699042423, 13.395734202360119, 1797250095006340185)


def test_wordings_of_flips_are_foreseen_where_quarter_turns_flip() -> None:
    case = Case("a", Path("a.png"), report=LEFT)
    assert report_variants([case], AugmentRecipe(rot_flip=0.5)) == report_variants(
        [case], AugmentRecipe(flip_horizontal=0.5, flip_vertical=0.5)
    )

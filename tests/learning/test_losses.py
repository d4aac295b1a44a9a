"""Segmentation losses equal the published and MONAI's ones; ignored pixels take no part."""

import math

import pytest
import torch

from preceptor.distillers.tokens import token_l1
from preceptor.errors import RecipeError
from preceptor.learning.losses import (
    LOSSES,
    balanced_bce,
    c2fvl,
    ce,
    dice,
    dice_ce,
    foreground_dice_ce,
    image_dice,
    languide_dice,
    segmentation_loss,
    soft_dice,
)
from preceptor.segmentors.c2fvl import cosine_alignment

every = pytest.mark.parametrize("name", list(LOSSES))


def draw(channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, channels, 12, 10, generator=generator)
    return logits, torch.randint(0, max(channels, 2), (2, 12, 10), generator=generator)


def test_dice_ce_equals_the_original(loss_cases):
    for case in loss_cases.of("dice_ce"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, dice_ce(inputs["logits"], inputs["mask"][:, 0]))


def test_languide_dice_equals_the_original(loss_cases):
    for case in loss_cases.of("languide_dice"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, soft_dice(inputs["probability"], inputs["mask"]))


def test_the_total_of_textfreekd_equals_the_original(loss_cases):
    (case,) = loss_cases.of("textfreekd_total")
    inputs = loss_cases.inputs(case)
    distilled = sum(token_l1(inputs[f"student{i}"], inputs[f"teacher{i}"]) for i in range(3))
    loss_cases.check(case, inputs, dice_ce(inputs["logits"], inputs["mask"][:, 0]) + 0.5 * distilled)


PARTS = {
    "c2fvl_dice": lambda given: image_dice(given["probability"], given["mask"].unsqueeze(1)),
    "c2fvl_bce": lambda given: balanced_bce(torch.logit(given["probability"]), given["mask"].unsqueeze(1)),
    "c2fvl_cosine": lambda given: cosine_alignment([given[f"p{number}"] for number in (1, 2, 3, 4)]),
}
PARTS["c2fvl_total"] = lambda given: (
    c2fvl(torch.logit(given["probability"]), given["mask"]) + PARTS["c2fvl_cosine"](given)
)


@pytest.mark.parametrize("loss", PARTS)
def test_the_losses_of_c2fvl_equal_the_original(loss_cases, loss):
    for case in loss_cases.of(loss):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, PARTS[loss](inputs))


def test_c2fvl_reads_the_foreground_of_one_or_two_channels_alike():
    logits, target = draw(1)
    target[0, :3] = 255
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(c2fvl(logits, target), c2fvl(two, target))


def test_both_classes_weigh_alike_in_the_balanced_cross_entropy():
    logits, reference = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    reference[..., :1, :1] = 1
    logits[..., :1, :1] = -2.0  # the one positive pixel is wrong
    expected = 0.5 * math.log1p(math.exp(2)) + 0.5 * math.log(2)
    assert balanced_bce(logits, reference).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_dice_ce_equals_monai(channels):
    from monai.losses import DiceCELoss

    logits, target = draw(channels)
    monai = DiceCELoss(sigmoid=True) if channels == 1 else DiceCELoss(to_onehot_y=True, softmax=True)
    label = target.unsqueeze(1).float() if channels == 1 else target.unsqueeze(1)
    torch.testing.assert_close(dice_ce(logits, target), monai(logits, label))


def test_languide_dice_reads_the_foreground_of_one_or_two_channels_alike():
    logits, target = draw(1)
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(languide_dice(logits, target), languide_dice(two, target))
    torch.testing.assert_close(languide_dice(logits, target), dice(logits, target))


@every
@pytest.mark.parametrize("channels", [1, 3])
def test_ignored_pixels_take_no_part(name, channels):
    loss = segmentation_loss(name)
    logits, target = draw(channels)
    target[:, 8:] = 255
    changed = logits.clone()
    changed[:, :, 8:] = 50.0
    changed.requires_grad_()
    value = loss(changed, target)
    torch.testing.assert_close(value, loss(logits[:, :, :8], target[:, :8]))
    value.backward()
    assert changed.grad is not None
    assert changed.grad[:, :, 8:].abs().max() == 0


@every
@pytest.mark.parametrize("channels", [1, 3])
def test_extreme_logits_stay_finite_and_float32_inside_autocast(name, channels):
    logits, target = draw(channels)
    for scale in (0.0, 1e4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = segmentation_loss(name)((scale * logits).bfloat16(), target)
        assert value.dtype == torch.float32
        assert torch.isfinite(value)


@every
def test_a_batch_that_is_ignored_throughout_gives_a_finite_loss(name):
    logits, target = draw(2)
    value = segmentation_loss(name)(logits.requires_grad_(), torch.full_like(target, 255))
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def pixels(logits: torch.Tensor, target: torch.Tensor, classes: slice) -> list[list[tuple[float, int, int]]]:
    """By class, (probability, 0 or 1, sample) of each pixel that takes part, in plain numbers."""
    probability = torch.softmax(logits.double(), 1)
    found: list[list[tuple[float, int, int]]] = []
    for number in list(range(logits.shape[1]))[classes]:
        rows = []
        for sample, row, column in (target != 255).nonzero().tolist():
            is_class = int(target[sample, row, column] == number)
            rows.append((probability[sample, number, row, column].item(), is_class, sample))
        found.append(rows)
    return found


def plain_dice(rows: list[tuple[float, int, int]], power: int = 1) -> float:
    overlap = sum(p * y for p, y, _ in rows)
    return (2 * overlap + 1e-5) / max(sum(p**power + y**power for p, y, _ in rows) + 1e-5, 1e-8)


def plain_ce(logits: torch.Tensor, target: torch.Tensor) -> float:
    rows = zip(*pixels(logits, target, slice(None)), strict=True)
    costs = [-math.log(p) for classes in rows for p, y, _ in classes if y]
    return sum(costs) / len(costs)


def plain_published(name: str, logits: torch.Tensor, target: torch.Tensor) -> float:
    """The published losses once more, pixel by pixel."""
    if name == "foreground_dice_ce":
        dices = [plain_dice(rows) for rows in pixels(logits, target, slice(1, None))]
        return plain_ce(logits, target) - sum(dices) / len(dices) + 1
    classes = pixels(logits, target, slice(None))
    if name == "flat_dice_ce":
        flat = [row for rows in classes for row in rows]
        dices = [plain_dice([row for row in flat if row[2] == sample]) for sample in range(len(logits))]
        return plain_ce(logits, target) + 1 - sum(dices) / len(dices)
    squared = 1 - sum(plain_dice(rows, power=2) for rows in classes) / len(classes)
    share = {"transunet": 0.5, "missformer": 0.6}[name]
    return (1 - share) * plain_ce(logits, target) + share * squared


@pytest.mark.parametrize("ignored", [False, True], ids=["whole", "partly-ignored"])
@pytest.mark.parametrize("name", ["foreground_dice_ce", "flat_dice_ce", "transunet", "missformer"])
def test_the_losses_of_the_zoo_equal_what_is_published(name, ignored):
    logits, target = draw(4)
    target[target == 3] = 0  # a class that is absent, where denominators are small
    target[0, 2:6, 3:9] = 255 if ignored else 1
    value = segmentation_loss(name)(logits, target).item()
    assert value == pytest.approx(plain_published(name, logits, target), rel=1e-5)


def test_a_class_in_one_sample_counts_in_the_dice_of_the_batch_alone():
    """Pooled sums know no absent class where another sample has it; per sample it costs its false positives."""
    logits, target = draw(3)
    target[0] = torch.where(target[0] == 2, 0, target[0])
    halves = (foreground_dice_ce(logits[:1], target[:1]) + foreground_dice_ce(logits[1:], target[1:])) / 2
    assert foreground_dice_ce(logits, target) < halves


def test_certain_and_right_costs_nothing():
    target = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = 100 * torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2).float()
    for name in LOSSES.keys() - {"textdiff"}:  # its Dice is of raw logits, which it draws to 0 and 1
        assert segmentation_loss(name)(logits, target) < 1e-5


def test_ce_is_the_mean_over_pixels():
    logits, target = draw(4)
    torch.testing.assert_close(ce(logits, target), torch.nn.functional.cross_entropy(logits, target))


def test_unknown_loss_gets_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean dice_ce"):
        segmentation_loss("dicece")

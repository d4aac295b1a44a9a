"""What a network answers is found out by running it once, and what it must not answer is said."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.dry_run import dry_run, find_divisor, grid, split_output, tap_places, tokens_to_map


class Answers(nn.Module):
    """Answers with whatever it was told to make of the image."""

    def __init__(self, make):
        super().__init__()
        self.make, self.part, self.idle = make, nn.Identity(), nn.Identity()

    def forward(self, image):
        return self.make(self.part(image))


class Halving(nn.Module):
    """A U-Net without weights: halves `levels` times, and adds what it doubles back."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, image, level=0):
        if level == self.levels:
            return image
        below = functional.max_pool2d(image, 3, 2, 1)
        return image + functional.interpolate(self.forward(below, level + 1), scale_factor=2)


def seen(make, taps=None, classes=2):
    module = Answers(make)
    return dry_run(module, 2, classes, (32, 64), tap_places(module, taps or {}))


@pytest.mark.parametrize("levels", range(6))
def test_divisor_is_the_least_that_works(levels):
    assert find_divisor(Halving(levels), 1, (64, 128)) == 2**levels


def test_network_of_one_size_alone_has_that_size_s_divisor():
    def only(image):
        assert image.shape[2:] == (48, 64)
        return image

    assert find_divisor(Answers(only), 2, (48, 64)) == 16


def test_network_that_enlarges_to_another_size_is_not_taken_at_its_word():
    module = Answers(lambda image: functional.interpolate(functional.avg_pool2d(image, 4), scale_factor=4))
    assert find_divisor(module, 2, (64, 128)) == 4


@pytest.mark.parametrize(
    "answer",
    [
        lambda image: image.mean((2, 3)),
        lambda image: image.sum(),
        lambda image: [],
        lambda image: {"prediction": image},
        lambda image: (image, image.sum()),
        lambda image: None,
    ],
)
def test_answers_that_are_no_logits_are_refused(answer):
    with pytest.raises(RecipeError, match=r"does not answer with logits[\s\S]*expected"):
        seen(answer)


@pytest.mark.parametrize(
    "answer", [lambda image: image[..., :30], lambda image: image.repeat(1, 2, 1, 1), lambda image: image.mT]
)
def test_logits_of_another_problem_are_refused(answer):
    with pytest.raises(RecipeError, match=r"logits of this problem[\s\S]*\[B, 2, 32, 64\]"):
        seen(answer)


def test_one_logit_serves_two_classes():
    assert seen(lambda image: image[:, :1]).taps == ()
    with pytest.raises(RecipeError, match="logits of this problem"):
        seen(lambda image: image[:, :1], classes=3)


def test_network_that_fails_is_told_with_its_reason():
    with pytest.raises(RecipeError, match=r"cannot be run[\s\S]*ZeroDivisionError[\s\S]*divisor"):
        seen(lambda image: 1 / 0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda image: {"logits": image, "aux": image},
        lambda image: {"out": image, "aux": image},
        lambda image: (image, image),
        lambda image: [image, None, image],
    ],
)
def test_logits_and_side_heads_are_found_in_common_answers(answer):
    image = torch.zeros(1, 2, 4, 4)
    logits, sides = split_output(answer(image))
    assert logits is image
    assert len(sides) == 1


def test_submodule_that_takes_no_part_is_named():
    with pytest.raises(RecipeError, match=r"takes no part[\s\S]*idle"):
        seen(lambda image: image, {"x": "idle"})


@pytest.mark.parametrize("taps", [{"": "part"}, {"a.b": "part"}, {"logits": "part"}])
def test_names_that_a_tap_cannot_have_are_refused(taps):
    with pytest.raises(RecipeError, match="cannot have this name"):
        seen(lambda image: image, taps)


def test_groups_are_those_of_the_taps():
    with pytest.raises(RecipeError, match=r"no such group[\s\S]*bridge"):
        seen(lambda image: image, {"x": ("part", "bridge")})


def test_tokens_are_laid_out_row_by_row():
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(tokens_to_map(maps.flatten(2).transpose(1, 2), (31, 40), 8), maps)
    assert grid((31, 40), 8) == (4, 5)

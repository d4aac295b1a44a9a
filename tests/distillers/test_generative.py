"""Masked generation: against a slow loop for a given mask; masks that a resumed run draws again."""

import pytest
import torch
from torch import Tensor

from preceptor.distillers.generative import MaskedGeneration, generation_distance, kept_positions
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

TAPS = (Tap("up1", 3, 2), Tap("up2", 4, 1))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int, batch: int = 2) -> Segmentation:
    maps = {tap.name: draw(batch, tap.channels, 8 // tap.stride, 12 // tap.stride, seed=seed) for tap in TAPS}
    return Segmentation(draw(batch, 2, 8, 12), maps)


def slowly(student: Tensor, teacher: Tensor, kept: Tensor, generator: torch.nn.Sequential) -> Tensor:
    """The definition, with convolutions written out position by position."""

    def convolve(image: Tensor, layer: torch.nn.Conv2d) -> Tensor:
        height, width = image.shape[1:]
        padded = torch.zeros(image.shape[0], height + 2, width + 2, dtype=image.dtype)
        padded[:, 1:-1, 1:-1] = image
        rows = [
            torch.stack(
                [(layer.weight * padded[:, y : y + 3, x : x + 3]).sum(dim=(1, 2, 3)) + layer.bias for x in range(width)]
            )
            for y in range(height)
        ]
        return torch.stack(rows).permute(2, 0, 1)

    total = torch.zeros((), dtype=student.dtype)
    for one, two, shown in zip(student, teacher, kept, strict=True):
        masked = one.clone()
        masked[:, shown[0] == 0] = 0
        made = convolve(convolve(masked, generator[0]).clamp_min(0), generator[2])
        total = total + (made - two).square().sum()
    return total / len(student)


def make(**options) -> MaskedGeneration:
    return MaskedGeneration(TAPS, TAPS, deepest=False, **options)


def test_value_and_gradient_equal_the_definition():
    generator = make().generators["up1"].double()
    student, teacher = draw(2, 3, 4, 5).double().requires_grad_(), draw(2, 3, 4, 5, seed=1).double()
    kept = kept_positions(2, (4, 5), 0.5, torch.Generator().manual_seed(0)).double()
    loss, expected = (f(student, teacher, kept, generator) for f in (generation_distance, slowly))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (loss, expected)))


def test_masked_positions_get_no_gradient_of_their_own():
    student = draw(1, 3, 4, 4).requires_grad_()
    kept = torch.zeros(1, 1, 4, 4)
    kept[..., :2] = 1
    generation_distance(student, draw(1, 3, 4, 4), kept, make().generators["up1"]).backward()
    assert student.grad[..., 2:].abs().max() == 0 < student.grad[..., :2].abs().max()


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.75])
def test_the_share_of_masked_positions_is_the_ratio(ratio):
    kept = kept_positions(4, (64, 64), ratio, torch.Generator().manual_seed(0))
    assert kept.shape == (4, 1, 64, 64)
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    assert abs(kept.mean().item() - (1 - ratio)) < 0.02


def losses(distiller: MaskedGeneration, steps: int) -> list[float]:
    return [sum(distiller(network(0), network(1)).values()).item() for _ in range(steps)]


def test_every_step_draws_new_masks_and_a_resumed_run_the_same():
    whole = losses(make(seed=5), 4)
    assert len(set(whole)) == 4
    first = make(seed=5)
    assert losses(first, 2) == whole[:2]
    resumed = make(seed=5)
    resumed.load_state_dict(first.state_dict())
    torch.rand(7)  # the global random state plays no part
    assert losses(resumed, 2) == whole[2:]
    assert losses(make(seed=6), 4) != whole


def test_the_count_stands_still_outside_training():
    distiller = make().eval()
    assert len(set(losses(distiller, 3))) == 1
    assert distiller.step == 0


def test_drawing_leaves_the_global_random_state():
    distiller, before = make(), torch.random.get_rng_state()
    distiller(network(0), network(1))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_a_ratio_that_leaves_nothing_is_refused(ratio):
    with pytest.raises(RecipeError, match="0 to below 1"):
        make(ratio=ratio)


def test_the_deepest_pair_is_taken_where_none_are_named():
    assert list(MaskedGeneration(TAPS, TAPS).generators) == ["up1"]
    assert list(MaskedGeneration(TAPS, TAPS, {"up2": "up2", "up1": "up1"}).generators) == ["up2", "up1"]
    encoder = tuple(Tap(f"stage{i}", 3, stride, "encoder") for i, stride in enumerate((4, 8, 8)))
    assert list(MaskedGeneration(encoder, encoder).generators) == ["stage2"]


def test_the_width_bounds_the_generator():
    def between(width: int) -> int:
        return MaskedGeneration((Tap("up", 3, 2),), (Tap("up", 200, 2),), width=width).generators["up"][0].out_channels

    assert [between(0), between(128), between(512)] == [200, 128, 200]

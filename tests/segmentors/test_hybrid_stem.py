"""The stem standardises its kernels at every pass, exactly, and halves maps as the published one does."""

import pytest
import torch
from torch.nn import functional

from preceptor.segmentors.hybrid_stem import HybridStem, StandardisedConv, norm, standardised


def test_kernels_have_mean_zero_and_biased_variance_one():
    kernels = standardised(3 + 5 * torch.randn(4, 3, 7, 7, dtype=torch.float64))
    torch.testing.assert_close(kernels.mean(dim=(1, 2, 3)), torch.zeros(4, dtype=torch.float64))
    variance = kernels.var(dim=(1, 2, 3), correction=0)
    torch.testing.assert_close(variance, torch.ones(4, dtype=torch.float64), rtol=1e-5, atol=0)


def test_epsilon_stands_beside_the_variance():
    kernels = torch.tensor([-1.0, 1.0]).mul(1e-3).reshape(1, 2, 1, 1)
    expected = 1e-3 / (1e-6 + 1e-5) ** 0.5
    torch.testing.assert_close(standardised(kernels).flatten(), torch.tensor([-expected, expected]))


def test_kernels_are_standardised_in_float32_under_autocast():
    conv = StandardisedConv(8, 4, 3)
    with torch.no_grad():
        conv.weight.add_(100)  # in bf16 nothing but the mean would be left
    image = torch.randn(1, 8, 6, 6)
    expected = conv(image)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(image)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_kernels_are_summed_after_they_were_standardised():
    image = torch.randn(1, 1, 8, 8)
    conv, grey = StandardisedConv(3, 4, 3), StandardisedConv(3, 4, 3, repeated=True)
    grey.load_state_dict(conv.state_dict())
    torch.testing.assert_close(grey(image), conv(image.repeat(1, 3, 1, 1)))
    summed = functional.conv2d(image, standardised(conv.weight.sum(1, keepdim=True)), padding=1)
    assert (summed - grey(image)).abs().max() > 0.1


@pytest.mark.parametrize(("height", "width"), [(224, 64), (16, 32)])
def test_first_stage_lacks_a_row_and_a_column(height, width):
    stem = HybridStem(1, 8, (1, 2, 1))
    found = [tuple(map.shape) for map in stem(torch.randn(1, 1, height, width))]
    assert found == [
        (1, 8, height // 2, width // 2),
        (1, 32, height // 4 - 1, width // 4 - 1),
        (1, 64, height // 8, width // 8),
        (1, 128, height // 16, width // 16),
    ]


def test_norms_have_32_groups_where_the_width_allows():
    assert [norm(width).num_groups for width in (64, 256, 32, 16, 24)] == [32, 32, 32, 16, 8]
    assert norm(64).eps == 1e-6


def test_projection_is_normalised_channel_by_channel():
    first, second = HybridStem(3, 64, (2, 1, 1)).body.block1
    assert (first.gn_proj.num_groups, first.gn_proj.eps) == (256, 1e-5)
    assert not second.project

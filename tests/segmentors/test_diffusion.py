"""The frozen diffusion U-Net against the golden cases, and what its feature extraction promises."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.errors import RecipeError, StorageError
from preceptor.originals.diffusion import convert_diffusion
from preceptor.segmentors.diffusion import (
    SHAPES,
    DiffusionFeatures,
    DiffusionShape,
    NoiseSchedule,
    diffusion_unet,
    frozen_features,
    read_diffusion,
    write_diffusion,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
TINY = DiffusionShape(32, widths=(16, 16, 32), layers=1, attention=(2,), head_width=16, groups=8)


def converted(case):
    """(shape, U-Net with the case's weights)."""
    shape, tensors = convert_diffusion(case.state, image_size=case.config.image_size)
    unet = diffusion_unet(shape)
    unet.load_state_dict(tensors)
    return shape, unet.eval()


def test_whole_small_network_equals_the_original(golden):
    case = golden("textdiff_unet_mini_32")
    shape, unet = converted(case)
    noisy, steps = case.inputs["x_t"].expand(3, -1, -1, -1), case.inputs["timesteps"]
    with torch.no_grad():
        case.assert_equal("time_embed", unet.time_embedding(unet.time_proj(steps)))
        case.assert_equal("out", unet(noisy, steps).sample)
        features = DiffusionFeatures(unet, shape, range(shape.blocks), [0], 0)
        for block, found in enumerate(features.tapped(noisy, steps)):
            case.assert_equal(f"output_blocks.{block}", found)


def test_full_structure_equals_the_original_at_every_tap(golden):
    case = golden("textdiff_unet_64")
    shape, unet = converted(case)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 34_615_686
    noisy, steps = case.inputs["x_t"].expand(3, -1, -1, -1), case.inputs["timesteps"]
    with torch.no_grad():
        case.assert_equal("out", unet(noisy, steps).sample)
        blocks = [4, 6, 8, 12, 16]
        for block, found in zip(
            blocks, DiffusionFeatures(unet, shape, blocks, [0], 0).tapped(noisy, steps), strict=True
        ):
            case.assert_equal(f"output_blocks.{block}", found)


@pytest.mark.parametrize("name", ["monuseg", "qata"])
def test_features_equal_the_original(golden, name):
    case = golden(f"textdiff_features_{name}_64")
    shape, unet = converted(case)
    features = DiffusionFeatures(unet, shape, case.config.blocks, case.config.steps, 40)
    features.noise = case.inputs["noise"]
    image = case.inputs["image"]
    case.assert_equal("x_t", features.noised(image)[0])
    found = features(image)
    for number, maps in enumerate(found):
        case.assert_equal(f"feature_{number}", maps)
    assert features.widths == tuple(maps.shape[1] for maps in found)
    assert features.strides == tuple(64 // maps.shape[2] for maps in found)
    both = features(torch.cat([image.flip(3), image]))
    for one, two in zip(found, both, strict=True):
        torch.testing.assert_close(one[0], two[1], rtol=1e-4, atol=1e-4)


def test_schedule_and_shared_noise_are_the_original_ones(golden):
    facts = json.loads((GOLDEN / "schedules.json").read_text())
    schedule = NoiseSchedule.linear()
    with np.load(GOLDEN / "schedules.npz") as arrays:
        for name, ours in {
            "betas": schedule.betas,
            "alphas_cumprod": schedule.kept,
            "sqrt_alphas_cumprod": schedule.signal,
            "sqrt_one_minus_alphas_cumprod": schedule.noise,
        }.items():
            np.testing.assert_allclose(ours, arrays[name], rtol=facts["tolerance"]["float64 arrays"]["rtol"])
        features = frozen_features(DiffusionShape(256, widths=(16,), attention=(), head_width=16, groups=8), [0], [0])
        np.testing.assert_allclose(features.noise.flatten()[::499], arrays["shared_noise_seed40"], rtol=0, atol=1e-6)


def test_image_at_a_timestep_equals_the_original(golden):
    case = golden("textdiff_unet_mini_32")  # for its `fill`
    with np.load(GOLDEN / "schedules.npz") as arrays:
        steps = arrays["steps"].tolist()
        features = frozen_features(DiffusionShape(4, widths=(16,), attention=(), head_width=16, groups=8), [0], steps)
        image, noise = (torch.from_numpy(case.fill.array(f"schedule.{name}", (2, 3, 4, 4))) for name in ("x0", "noise"))
        for picture, one in enumerate(image):
            features.noise = noise[picture : picture + 1]
            expected = torch.from_numpy(arrays["x_t"][:, picture])
            torch.testing.assert_close(features.noised(one[None])[0], expected, rtol=1e-6, atol=1e-6)
        for width in (64, 256):
            unet = diffusion_unet(DiffusionShape(8, widths=(width,), layers=1, attention=()))
            ours = unet.time_proj(torch.tensor(steps))
            torch.testing.assert_close(ours, torch.from_numpy(arrays[f"embedding_{width}"]), rtol=0, atol=2e-4)


def test_published_shape_has_the_published_size():
    with torch.device("meta"):
        unet = diffusion_unet(SHAPES["imagenet256"])
    assert sum(parameter.numel() for parameter in unet.parameters()) == 552_814_086
    shape = SHAPES["imagenet256"]
    assert [3 * shape.width(block) for block in (6, 8, 12, 16)] == [1536, 1536, 768, 768]
    assert [256 // shape.stride(block) for block in (6, 8, 12, 16)] == [32, 64, 128, 256]
    assert [3 * shape.width(block) for block in (4, 6, 8, 12)] == [3072, 1536, 1536, 768]
    assert [256 // shape.stride(block) for block in (4, 6, 8, 12)] == [16, 32, 64, 128]


def test_early_stop_equals_the_whole_pass_and_keeps_no_more_than_it_needs():
    torch.manual_seed(1)
    unet = diffusion_unet(TINY)
    state = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    seen = []
    unet.up_blocks[1].resnets[0].register_forward_hook(lambda module, given, found: seen.append(found))
    noisy, steps = torch.randn(2, 3, 32, 32), torch.tensor([50, 250])
    with torch.no_grad():
        unet(noisy, steps)
        other = diffusion_unet(TINY)
        other.load_state_dict(state)
        features = DiffusionFeatures(other, TINY, [2], [50, 250], 0)
        torch.testing.assert_close(features.tapped(noisy, steps)[0], seen[0])
    assert len(features.up_blocks) == 2
    assert len(features.up_blocks[1].resnets) == 1


def test_features_never_learn_and_repeat_themselves():
    features = frozen_features(TINY, [1, 3], [0, 999]).train()
    assert not features.training
    assert not any(parameter.requires_grad for parameter in features.parameters())
    image = torch.randn(2, 3, 32, 48, requires_grad=True)  # another size than the noise's
    first, second = features(image), frozen_features(TINY, [3, 1], [0, 999])(image)
    assert all(torch.equal(one, two) and not one.requires_grad for one, two in zip(first, second, strict=True))
    assert [maps.shape[1:] for maps in first] == [
        (width, 32 // stride, 48 // stride) for width, stride in zip(features.widths, features.strides, strict=True)
    ]


def test_every_timestep_of_a_batch_is_its_own_forward_pass():
    together = frozen_features(TINY, [1, 3], [50, 150])
    image = torch.randn(2, 3, 32, 32)
    apart = [frozen_features(TINY, [1, 3], [step])(image) for step in (50, 150)]
    for maps, *single in zip(together(image), *apart, strict=True):
        torch.testing.assert_close(maps, torch.cat(single, dim=1), rtol=1e-4, atol=1e-5)


def test_file_keeps_shape_and_weights(tmp_path):
    torch.manual_seed(2)
    unet = diffusion_unet(TINY)
    write_diffusion(tmp_path / "unet.safetensors", TINY, unet.state_dict())
    shape, state = read_diffusion(tmp_path / "unet.safetensors")
    assert shape == TINY
    assert all(torch.equal(tensor, state[name]) for name, tensor in unet.state_dict().items())
    from_file = frozen_features(tmp_path / "unet.safetensors", [5], [50])
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(from_file(image)[0], DiffusionFeatures(unet, TINY, [5], [50], 40)(image)[0])


def test_wrong_files_and_numbers_are_refused(tmp_path):
    with pytest.raises(StorageError, match="not there"):
        frozen_features(tmp_path / "none.safetensors", [0], [0])
    with pytest.raises(RecipeError, match="impossible blocks"):
        frozen_features(TINY, [6], [0])
    with pytest.raises(RecipeError, match="impossible steps"):
        frozen_features(TINY, [0], [1000])
    with pytest.raises(RecipeError, match="no multiple of head_width"):
        DiffusionShape(32, widths=(16, 24), attention=(1,), head_width=16, groups=8)

"""TextDiff's classifier against the golden cases, its ablations and extensions, and its frozen U-Net kept apart."""

import pytest
import torch

from preceptor.errors import RecipeError, StorageError
from preceptor.originals.textdiff import TEXTDIFF
from preceptor.segmentors.base import Condition, learnable_parameters
from preceptor.segmentors.diffusion import SHAPES, diffusion_unet, write_diffusion
from preceptor.segmentors.pixel_classifier import PixelClassifier
from preceptor.segmentors.textdiff import TextDiff, TextDiffFree
from preceptor.storage import hash_file

REPORT = Condition("report", 5, 24)


def build(**options):
    torch.manual_seed(0)
    return TextDiff(3, 2, "tiny", condition=REPORT, **options)


def given(batch=2, side=16):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 3, side, side, generator=generator) * 2 - 1
    return image, torch.randn(batch, REPORT.length, REPORT.width, generator=generator)


@pytest.mark.parametrize(("name", "parameters"), [("monuseg", 9_683_234), ("qata", 10_862_882)])
def test_classifier_equals_the_original(golden, name, parameters):
    case = golden(f"textdiff_classifier_{name}")
    network = PixelClassifier(case.config.extract_dims, 2, text_width=768).eval()
    assert learnable_parameters(network) == parameters
    tensors, _ = TEXTDIFF.rename(case.state)
    state = {key.removeprefix("classifier."): tensor for key, tensor in tensors.items()}
    state |= {key: tensor for key, tensor in network.state_dict().items() if key.endswith("num_batches_tracked")}
    network.load_state_dict(state)
    with torch.no_grad():
        found = network([case.inputs[f"feature_{scale}"] for scale in range(4)], case.inputs["text"], (256, 256))
    for scale, maps in enumerate(found.fused):
        case.assert_equal(f"fused_{scale}", maps.flatten(2).transpose(1, 2))
    case.assert_equal("logits", found.logits)


def test_published_classifiers_take_the_published_widths():
    with torch.device("meta"):
        for blocks, parameters in (("monuseg", 9_683_234), ("qata", 10_862_882)):
            network = TextDiff(3, 2, condition=Condition("report", 10, 768), blocks=blocks)
            assert learnable_parameters(network) == parameters


def test_unet_is_in_no_state_and_learns_nothing(tmp_path):
    network = build()
    assert all(name.startswith("classifier.") for name in network.state_dict())
    assert {id(p) for p in network.parameters()}.isdisjoint(id(p) for p in network.frozen.parameters())
    before = {name: tensor.clone() for name, tensor in network.frozen.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network.train()(*given()).logits.square().mean().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.frozen.state_dict().items())


def test_unet_goes_where_the_classifier_goes():
    network = build().double()
    assert network.frozen.conv_in.weight.dtype == torch.float64


def test_kept_features_give_the_same_answer():
    network = build().eval()
    image, report = given()
    with torch.no_grad():
        expected = network(image, report).logits
        maps = network.frozen_maps(image)
        assert torch.equal(network.classify(maps, report).logits, expected)
        halved = network.classify([part.half() for part in maps], report).logits
    torch.testing.assert_close(halved, expected, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("options", [{}, {"text": "concat"}, {"hierarchical": True}, {"independent": True}])
def test_every_way_to_read_answers_to_the_report(options):
    network = build(**options).eval()
    image, report = given()
    with torch.no_grad():
        assert not torch.allclose(network(image, report).logits, network(image, report.flip(0)).logits, atol=1e-7)


def test_hierarchical_attention_has_a_block_a_scale():
    shared, own = build(), build(hierarchical=True)
    block = learnable_parameters(shared.classifier.fuse)
    assert learnable_parameters(own) - learnable_parameters(shared) == (len(shared.frozen.blocks) - 1) * block


def test_network_without_text_has_no_text_parameter():
    free = TextDiffFree(3, 2, "tiny")
    assert free.condition is None
    assert not len(free.classifier.fuse)
    with pytest.raises(RecipeError, match="textdiff_free"):
        build(text="none")


def test_alignment_falls_as_image_and_report_point_the_same_way():
    network = build(contrastive=0.1, width=24)
    image, report = given()
    found = network(image, report)
    loss = network.own_losses(found)["alignment"]
    expected = torch.stack(
        [found.features[f"fused{scale}"].mean((2, 3)) for scale in range(len(network.frozen.blocks))]
    )
    cosine = torch.cosine_similarity(expected.mean(0), report.mean(1))
    torch.testing.assert_close(loss, 0.1 * (1 - cosine).mean())
    loss.backward()
    assert network.classifier.fuse[0].project.weight.grad.any()
    same = found._replace(aligned=(found.aligned[1], found.aligned[1]))
    assert network.own_losses(same)["alignment"].item() == pytest.approx(0, abs=1e-6)
    assert build().own_losses(build()(image, report)) == {}
    with pytest.raises(RecipeError, match="equally wide"):
        build(contrastive=0.1)


def test_a_grey_image_is_repeated_and_colours_can_be_turned():
    network = build().eval()
    grey = TextDiff(1, 2, "tiny", condition=REPORT).eval()
    grey.load_state_dict(network.state_dict())
    turned = build(bgr=True).eval()
    image, report = given()
    with torch.no_grad():
        one = image[:, :1]
        assert torch.equal(grey(one, report).logits, network(one.expand(-1, 3, -1, -1), report).logits)
        assert torch.equal(turned(image.flip(1), report).logits, network(image, report).logits)


def test_weights_come_from_a_file_that_is_known_by_its_hash(tmp_path):
    file = tmp_path / "unet.safetensors"
    torch.manual_seed(3)
    write_diffusion(file, SHAPES["tiny"], diffusion_unet(SHAPES["tiny"]).state_dict())
    image, report = given()
    network = build(diffusion=str(file), diffusion_hash=hash_file(file)).eval()
    assert not torch.allclose(network(image, report).logits, build().eval()(image, report).logits)
    with pytest.raises(StorageError, match="not the one"):
        build(diffusion=str(file), diffusion_hash="0" * 64)
    with pytest.raises(RecipeError, match="number of channels"):
        TextDiff(4, 2, "tiny", condition=REPORT, diffusion=str(file))
    with pytest.raises(RecipeError, match="no such set"):
        build(blocks="glas")
    with pytest.raises(ValueError, match="token features"):
        network(image)

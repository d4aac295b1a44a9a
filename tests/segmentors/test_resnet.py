"""ResNets start as published, tell the truth about their maps, and load published checkpoints by their names."""

import pytest
import torch
from torch import nn

from preceptor.errors import RecipeError, StorageError
from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.fcn import FcnR18
from preceptor.segmentors.resnet import ResNet
from preceptor.storage import write_tensors


@pytest.mark.parametrize(
    ("depth", "classifier", "published"), [(18, 513, 11_689_512), (34, 513, 21_797_672), (50, 2049, 25_557_032)]
)
def test_a_plain_resnet_without_its_classifier_has_the_published_number_of_parameters(depth, classifier, published):
    with torch.device("meta"):
        assert learnable_parameters(ResNet(3, depth=depth, stem="plain")) == published - classifier * 1000


def test_strides_and_dilations_decide_the_size_of_the_maps():
    image = torch.randn(1, 1, 70, 41)
    for strides, sides in (((1, 2, 1, 1), (18, 9, 9, 9)), ((1, 2, 2, 2), (18, 9, 5, 3))):
        network = ResNet(1, width=4, strides=strides, dilations=(1, 1, 2, 4)).eval()
        found = network(image)
        assert tuple(part.shape[2] for part in found.maps) == sides
        assert [tap.stride for tap in network.taps if tap.group == "encoder"] == list(network.strides_out)
        assert found.stem.shape == (1, 4, 35, 21)


def test_a_map_is_the_relu_of_what_stands_before_it_and_keeps_both():
    network = ResNet(3, width=4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    found = network(torch.randn(2, 3, 64, 64))
    for after, before in zip(found.maps, found.before, strict=True):
        assert torch.equal(after, before.relu())
        assert (before < 0).any()


def test_every_residual_block_starts_as_its_shortcut():
    network = ResNet(3, depth=50, width=4)
    last = [module for name, module in network.named_modules() if name.endswith("bn3")]
    assert len(last) == 16
    assert not any(module.weight.any() for module in last)
    others = [m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and not n.endswith("bn3")]
    assert all((module.weight == 1).all() for module in others)


@pytest.fixture
def published(tmp_path):
    """A checkpoint in OpenMMLab's (v1c) or torchvision's (plain) names; (network, file)."""

    def make(stem, prefix="", **extra):
        torch.manual_seed(0)
        network = ResNet(3, width=4, stem=stem)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
        state = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
        write_tensors(tmp_path / "resnet.safetensors", {prefix + key: value for key, value in state.items()} | extra)
        return network.eval(), str(tmp_path / "resnet.safetensors")

    return make


@pytest.mark.parametrize(("stem", "prefix"), [("v1c", "backbone."), ("plain", "")])
def test_a_published_checkpoint_starts_the_backbone_and_its_stem_is_summed_for_grey(stem, prefix, published):
    network, file = published(stem, prefix, **{"fc.weight": torch.zeros(2, 2)})
    image = torch.randn(1, 1, 64, 64)
    expected = network(image.expand(-1, 3, -1, -1)).maps[3]
    for channels in (1, 3):
        loaded = FcnR18(channels, 2, "tiny", width=4, stem=stem, pretrained=file).backbone
        plain = ResNet(channels, width=4, stem=stem, pretrained=file).eval()
        torch.testing.assert_close(plain(image.expand(-1, channels, -1, -1)).maps[3], expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(loaded.layer4[1].conv2.weight, network.layer4[1].conv2.weight)


def test_a_checkpoint_of_another_network_is_refused_with_every_fault(published):
    _, file = published("plain", **{"neck.weight": torch.zeros(2)})
    with pytest.raises(StorageError, match=r"not known: neck.weight[\s\S]*missing: stem.0.weight") as error:
        ResNet(3, width=4, pretrained=file)
    assert "not known: conv1.weight" in error.value.offenders
    with pytest.raises(StorageError, match=r"layer1.0.conv1.weight: \(4, 4, 3, 3\) in place of \(8, 8, 3, 3\)"):
        ResNet(3, width=8, stem="plain", pretrained=file)
    with pytest.raises(RecipeError, match=r"another number of channels[\s\S]*expected: +5, or 1"):
        ResNet(5, width=4, stem="plain", pretrained=file)

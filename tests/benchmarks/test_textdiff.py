"""The baseline of TextDiff's classifier does the same arithmetic as ours, and the maps are the published ones."""

from pathlib import Path

import pytest
import torch

from benchmarks.scene import Setting
from benchmarks.textdiff import QUICK, Classifier, check_equal, kept_batch, published_shapes, transcription
from benchmarks.textdiff_plain import PlainClassifier, plain_name
from preceptor.segmentors.pixel_classifier import PixelClassifier


def test_ours_and_the_transcription_train_alike():
    torch.manual_seed(0)
    widths, dial = (24, 12, 12, 16), {"width": 16, "heads": 2, "head_width": 16, "decoder_widths": (6, 4)}
    ours = PixelClassifier(widths, 2, text_width=10, **dial).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    plain = PlainClassifier(widths, 2, 10, **dial).double()
    plain.load_state_dict({plain_name(key): tensor for key, tensor in ours.state_dict().items()})
    maps = [torch.randn(2, own, side, side).double() for own, side in zip(widths, (2, 4, 8, 16), strict=True)]
    text = torch.randn(2, 5, 10).double()
    found, expected = ours(maps, text, (16, 16)).logits, plain(maps, text, (16, 16))
    torch.testing.assert_close(found, expected)
    for logits in (found, expected):
        logits.sin().sum().backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[plain_name(name)].grad, rtol=1e-6, atol=1e-8)


def test_another_network_is_not_measured(tmp_path: Path):
    setting = Setting(True, 0, tmp_path)
    network = Classifier(QUICK, (64, 2, 32, (32, 16)))
    loop = transcription(setting, network)
    shown = kept_batch(setting, network, [torch.randn(shape) for shape in QUICK])
    assert {part.dtype for part in shown.frozen["maps"]} == {torch.float16}
    check_equal(network, loop, shown)
    with torch.no_grad():
        network.classifier.head.bias += 1
    with pytest.raises(AssertionError):
        check_equal(network, loop, shown)


def test_maps_of_the_benchmark_are_the_published_ones():
    assert published_shapes("monuseg") == ((1536, 32, 32), (1536, 64, 64), (768, 128, 128), (768, 256, 256))
    assert published_shapes("qata") == ((3072, 16, 16), (1536, 32, 32), (1536, 64, 64), (768, 128, 128))

"""The report-free student gives the original's numbers and has nothing of a text in it."""

import subprocess
import sys

import torch

from preceptor.originals.textguided import official_name
from preceptor.segmentors import zoo
from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.guide_network import GuideStage, SelfGuideLayer
from preceptor.segmentors.unguided import Unguided
from preceptor.weights import convert


def tokens(feature):
    return feature.flatten(2).transpose(1, 2)


def as_map(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, (grid, grid))


def test_guide_layer_equals_the_original(golden):
    case = golden("guide_layer_student")
    layer = SelfGuideLayer(case.config.width)
    prefix = "decoder16.guide_layer."
    layer.load_state_dict(
        {official_name(prefix + key).removeprefix("decoder.stages.0.layer."): v for key, v in case.state.items()}
    )
    case.assert_equal("tokens", layer(case.inputs["tokens"]))


def test_guide_stage_equals_the_original(golden):
    case = golden("guide_stage_student")
    stage = GuideStage(SelfGuideLayer(case.config.width), case.config.width, case.config.out_width)
    named = {official_name("decoder16." + key).removeprefix("decoder.stages.0."): v for key, v in case.state.items()}
    stage.load_state_dict(named, strict=False)
    low = as_map(case.inputs["tokens"], case.config.grid)
    up, guided = stage.eval()(low, as_map(case.inputs["skip"], 2 * case.config.grid), None)
    case.assert_equal("tokens", tokens(up))
    case.assert_equal("feature", tokens(guided))


def test_student_equals_the_original_through_the_importer(golden):
    case = golden("textfreekd_student_224")
    imported = convert(case.state, "textfreekd-student", deep_supervision=True)
    assert case.unused == set(imported.dropped)
    network = imported.network()
    with torch.no_grad():
        found = network(case.inputs["image"])
    case.assert_equal("logits", found.logits)
    for ours, theirs in (("guide32", "feature16"), ("guide16", "feature8"), ("guide8", "feature4")):
        case.assert_equal(theirs, tokens(found.features[ours]))
    case.assert_equal("side16", found.auxiliary[0].sigmoid())
    case.assert_equal("side8", found.auxiliary[1].sigmoid())


def test_base_student_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert learnable_parameters(Unguided()) == 38_034_578
        assert learnable_parameters(Unguided(deep_supervision=True)) == 38_035_156


def test_student_has_no_text_parameter():
    with torch.device("meta"):
        names = {name for name, _ in Unguided(size="tiny").named_parameters()}
    assert not [name for name in names if any(word in name for word in ("cross", "mix", "project", "scale."))]
    assert "condition" not in zoo.options("unguided")


def test_student_answers_the_same_whatever_condition_it_is_given():
    torch.manual_seed(0)
    network = Unguided(size="tiny", widths=(8, 16, 16, 32), depths=(1, 1, 1, 1)).eval()
    image = torch.randn(1, 3, 32, 32)
    assert network.condition is None
    assert torch.equal(network(image).logits, network(image, torch.randn(1, 24, 768)).logits)


def test_student_runs_where_transformers_and_its_text_models_cannot_be_imported():
    program = """
import importlib.abc, sys
class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "tokenizers", "monai", "lightning", "pandas", "matplotlib"):
            raise ImportError("forbidden here: " + name)
sys.meta_path.insert(0, Forbid())
import torch
from preceptor.segmentors import zoo
network = zoo.build("unguided", in_channels=1, classes=2, size="tiny", widths=[8, 16, 16, 32], depths=[1, 1, 1, 1])
assert network.eval()(torch.randn(1, 1, 32, 32)).logits.shape == (1, 2, 32, 32)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_transposed_student_equals_the_plain_one_on_the_transposed_image():
    torch.manual_seed(0)
    options = {"widths": (8, 16, 16, 32), "depths": (1, 1, 1, 1), "deep_supervision": True}
    plain, turned = Unguided(**options).eval(), Unguided(transposed=True, **options).eval()
    turned.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 32)
    expected, found = plain(image.transpose(2, 3)), turned(image)
    torch.testing.assert_close(found.logits, expected.logits.transpose(2, 3))
    torch.testing.assert_close(found.features["guide8"], expected.features["guide8"].transpose(2, 3))
    torch.testing.assert_close(found.auxiliary[0], expected.auxiliary[0].transpose(2, 3))


def test_grey_image_is_repeated_for_a_network_of_three_channels():
    torch.manual_seed(0)
    network = Unguided(widths=(8, 16, 16, 32), depths=(1, 1, 1, 1)).eval()
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(network(image).logits, network(image.expand(-1, 3, -1, -1).contiguous()).logits)

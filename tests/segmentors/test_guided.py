"""The report-guided teacher and LanGuide give the originals' numbers, and really read their reports."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.originals.textguided import official_name
from preceptor.segmentors.base import Condition, learnable_parameters
from preceptor.segmentors.guide_network import GuideDecoder, GuideStage
from preceptor.segmentors.guided import Guided, GuideLayer
from preceptor.weights import convert

REPORT = Condition("report", 24, 768)


def tokens(feature):
    return feature.flatten(2).transpose(1, 2)


def as_map(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, (grid, grid))


def layer_of(config):
    return GuideLayer(config.width, config.text_length, config.text_dim, config.text_tokens, heads=config.cross_heads)


@pytest.mark.parametrize("name", ["guide_layer_teacher", "guide_layer_languide"])
def test_guide_layer_equals_the_original(golden, name):
    case = golden(name)
    layer = layer_of(case.config)
    prefix = "decoder16.guide_layer."
    layer.load_state_dict(
        {official_name(prefix + key).removeprefix("decoder.stages.0.layer."): v for key, v in case.state.items()}
    )
    case.assert_equal("tokens", layer(case.inputs["tokens"], case.inputs["text"]))
    case.assert_equal("text_projected", layer.read(case.inputs["text"]))


def test_guide_stage_equals_the_original(golden):
    case = golden("guide_stage_teacher")
    stage = GuideStage(layer_of(case.config), case.config.width, case.config.out_width)
    named = {official_name("decoder16." + key).removeprefix("decoder.stages.0."): v for key, v in case.state.items()}
    stage.load_state_dict(named, strict=False)
    low = as_map(case.inputs["tokens"], case.config.grid)
    up, guided = stage.eval()(low, as_map(case.inputs["skip"], 2 * case.config.grid), case.inputs["text"])
    case.assert_equal("tokens", tokens(up))
    case.assert_equal("feature", tokens(guided))


def test_teacher_equals_the_original_through_the_importer(golden):
    case = golden("textfreekd_teacher_224")
    imported = convert(case.state, "textfreekd-teacher", deep_supervision=True)
    assert case.unused == set(imported.dropped)
    network = imported.network()
    with torch.no_grad():
        found = network(case.inputs["image"], case.inputs["text"])
    case.assert_equal("logits", found.logits)
    for ours, theirs in (("guide32", "feature16"), ("guide16", "feature8"), ("guide8", "feature4")):
        case.assert_equal(theirs, tokens(found.features[ours]))
    case.assert_equal("side16", found.auxiliary[0].sigmoid())
    case.assert_equal("side8", found.auxiliary[1].sigmoid())


def test_languide_decoder_equals_the_original(golden):
    case = golden("languide_decoder")
    config = case.config
    decoder = GuideDecoder(
        config.widths,
        config.out_channels,
        lambda index, width: GuideLayer(width, config.text_length, config.text_dim, config.text_tokens[index]),
        head_width=24,
        deep_supervision=False,
    )
    named = {official_name(key).removeprefix("decoder."): v for key, v in case.state.items()}
    kept = decoder.load_state_dict(named, strict=False)
    assert not kept.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in kept.missing_keys)
    maps = [case.inputs[name] for name in ("s4", "s8", "s16", "s32")]
    with torch.no_grad():
        found = decoder.eval()(maps, case.inputs["text"])
    case.assert_equal("logits", found.logits)
    case.assert_equal("probability", found.logits.sigmoid())
    for ours, theirs in (("guide32", "guide16"), ("guide16", "guide8"), ("guide8", "guide4")):
        case.assert_equal(theirs, tokens(found.features[ours]))


def test_base_teachers_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        assert learnable_parameters(Guided(condition=REPORT)) == 42_176_570
        assert learnable_parameters(Guided(condition=REPORT, variant="languide")) == 42_176_545


@pytest.mark.parametrize(("variant", "scale"), [("textfreekd", 0.01), ("languide", 1.421)])
def test_report_enters_with_the_published_initial_scale(variant, scale):
    network = small(variant=variant)
    assert [round(stage.layer.scale.item(), 6) for stage in network.decoder.stages] == [scale] * 3


def small(**options):
    torch.manual_seed(0)
    return Guided(condition=Condition("report", 7, 12), widths=(8, 16, 16, 32), depths=(1, 1, 1, 1), **options).eval()


def test_teacher_answers_differently_to_another_report():
    network, image = small(), torch.randn(1, 3, 32, 32)
    first, second = network(image, torch.randn(1, 7, 12)), network(image, torch.randn(1, 7, 12))
    assert all((first.features[tap.name] - second.features[tap.name]).abs().max() > 1e-4 for tap in network.taps)


def test_teacher_without_a_report_says_so():
    with pytest.raises(ValueError, match="needs the report's token features"):
        small()(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "lviT"}, "no such variant"),
        ({"variant": "languide", "classes": 3}, "one foreground class"),
        ({"report_tokens": [24, 12]}, "three positive whole numbers"),
        ({"cross_heads": 5}, "not divisible by the attention heads"),
        ({"widths": [8, 16]}, "four positive whole numbers"),
        ({"size": "huge"}, "no such size"),
        ({"classes": 1}, "two classes"),
        ({"condition": Condition("attributes", 1, 8)}, "reads reports"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        Guided(**{"condition": REPORT, **options})

"""Knowledge review: golden chains, parts and losses; the order of the stages; the scale of the teacher."""

import pytest
import torch
from torch import Tensor

from preceptor.distillers.review import AttentionFusion, Review, hierarchical_context, normalised
from preceptor.distillers.zoo import build
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
HCL = ["hcl_h16", "hcl_h4", "hcl_h3", "hcl_h2", "hcl_h1", "hcl_rect"]
ABF = ["abf_deep_eval", "abf_fuse_eval", "abf_fuse_train", "abf_fuse_resize"]
CHAINS = ["review_equal", "review_resized", "review_seed"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def load(module: torch.nn.Module, weights: dict[str, Tensor], prefix: str) -> None:
    """Strictly, but for the counters of batches, which the cases leave out."""
    state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)


@both
@pytest.mark.parametrize("name", HCL)
def test_context_loss_equals_the_original(distiller_cases, name, dtype):
    inputs = distiller_cases.inputs(name, dtype)
    distiller_cases.check(name, inputs, hierarchical_context(inputs["student"], inputs["teacher"]))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 4), (4, 3), (5, 2), (16, 16), (12, 20)])
def test_context_loss_of_constant_maps_does_not_depend_on_their_size(size):
    torch.testing.assert_close(
        hierarchical_context(torch.full((2, 3, *size), 3.0), torch.zeros(2, 3, *size)), torch.tensor(9.0)
    )


@pytest.mark.parametrize(("side", "divisor"), [(16, 1.875), (5, 1.875), (4, 1.75), (3, 1.75), (2, 1.5), (1, 1.0)])
def test_context_loss_divides_by_the_weights_of_the_levels_it_keeps(side, divisor):
    checker = torch.zeros(1, 1, side, side)
    checker[..., 0, 0], checker[..., -1, -1] = 1.0, -1.0  # of mean zero, so that the coarsest level is zero
    if side == 1:
        checker = checker + 1
    coarse = [torch.nn.functional.adaptive_avg_pool2d(checker, k).square().mean() for k in (4, 2, 1) if k < side]
    expected = checker.square().mean() + sum(c / 2 ** (i + 1) for i, c in enumerate(coarse))
    torch.testing.assert_close(hierarchical_context(checker, torch.zeros_like(checker)), expected / divisor)


@both
@pytest.mark.parametrize("name", ABF)
def test_fusion_equals_the_original(distiller_cases, name, dtype):
    case, inputs = distiller_cases.cases[name], distiller_cases.inputs(name, dtype)
    hyper = case["hyper"]
    fusion = AttentionFusion(hyper["in"], hyper["mid"], hyper["out"], deepest=not hyper["fuse"]).to(dtype)
    load(fusion, distiller_cases.weights(name, dtype), f"pub.abf.{name.removeprefix('abf_')}.")
    fusion.train(hyper["batchnorm"] == "batch statistics")
    side = hyper["teacher_size"]
    predicted, joined = fusion(inputs["student"], inputs.get("residual"), (side, side))
    probe = torch.from_numpy(distiller_cases.fill.array("pub.abf.probe", tuple(predicted.shape))).to(dtype)
    distiller_cases.check(name, inputs, (predicted * probe).mean(), {"O": predicted, "R": joined})


@both
@pytest.mark.parametrize("name", CHAINS)
def test_the_whole_chain_equals_the_original(distiller_cases, name, dtype):
    case, inputs = distiller_cases.cases[name], distiller_cases.inputs(name, dtype)
    count = sum(key.startswith("student") for key in inputs)
    student, teacher = (
        Segmentation(inputs["student1"], {f"stage{i}": inputs[f"{whose}{i}"] for i in range(1, count + 1)})
        for whose in ("student", "teacher")
    )
    mine, theirs = (
        tuple(
            Tap(key, feature.shape[1], 4 if key == "stage1" else 8, "preact") for key, feature in one.features.items()
        )
        for one in (student, teacher)
    )
    distiller = Review(mine, theirs, mid=case["hyper"]["mid"]).to(dtype)
    for i in range(1, count + 1):
        prefix = f"pub.review.{name.removeprefix('review_')}.stage{i}."
        load(distiller.stages[f"stage{i}"], distiller_cases.weights(name, dtype), prefix)
    distiller.train(case["hyper"]["batchnorm"] == "batch statistics")
    predictions = {}
    distiller.stages["stage1"].register_forward_hook(lambda _, __, out: predictions.update(O1=out[0]))
    losses = distiller(student, teacher)
    assert list(losses) == [f"review/stage{i}" for i in range(1, count + 1)]
    terms = torch.stack(list(losses.values()))
    distiller_cases.check(name, inputs, terms.sum(), {"terms": terms, **predictions})


def features(taps: tuple[Tap, ...], side: tuple[int, int] = (16, 24), seed: int = 0) -> Segmentation:
    maps = {t.name: draw(2, t.channels, side[0] // t.stride, side[1] // t.stride, seed=seed + t.channels) for t in taps}
    return Segmentation(draw(2, 3, *side), maps)


ENCODER = tuple(Tap(f"layer{i}", 2 + i, stride, "encoder") for i, stride in enumerate((2, 4, 4), 1))
DECODER = tuple(Tap(f"up{i}", 9 - i, stride, "decoder") for i, stride in enumerate((4, 4, 2), 1))


def test_stages_are_joined_from_deep_to_shallow_however_the_pairs_are_written():
    pairs = {"layer2": "layer2", "layer3": "layer3", "layer1": "layer1"}
    one, two = Review(ENCODER, ENCODER, pairs), Review(ENCODER, ENCODER)
    assert list(one.stages) == ["layer3", "layer2", "layer1"]
    assert [fusion.att_conv is None for fusion in one.stages.values()] == [True, False, False]
    seen = [one(features(ENCODER), features(ENCODER, seed=9)), two(features(ENCODER), features(ENCODER, seed=9))]
    assert list(seen[0]) == list(seen[1]) == ["review/layer1", "review/layer2", "review/layer3"]
    assert all(torch.equal(seen[0][key], seen[1][key]) for key in seen[0])
    assert list(Review(DECODER, DECODER, {tap.name: tap.name for tap in DECODER}).stages) == ["up1", "up2", "up3"]


def test_it_compares_before_the_relu_where_both_networks_can():
    before = tuple(Tap(f"{t.name}_preact", t.channels, t.stride, "preact") for t in ENCODER)
    assert next(iter(Review((*ENCODER, *before), (*ENCODER, *before)).stages)) == "layer3_preact"
    assert next(iter(Review((*ENCODER, *before), ENCODER).stages)) == "layer3"


def test_the_width_is_that_of_the_deepest_stage_up_to_512():
    def width(channels: int, mid: int = 0) -> int:
        taps = (Tap("a", 4, 2, "encoder"), Tap("b", channels, 4, "encoder"))
        return Review(taps, taps, mid=mid).stages["a"].conv1[0].out_channels

    assert [width(6), width(600), width(600, 24)] == [6, 512, 24]
    seed = build("review", student_taps=ENCODER, teacher_taps=ENCODER, preset="mmseg-kd")
    assert seed.stages["layer1"].conv1[0].out_channels == 512


def test_stage_weights_go_from_shallow_to_deep():
    student, teacher = features(ENCODER), features(ENCODER, seed=5)
    plain = Review(ENCODER, ENCODER)(student, teacher)
    found = Review(ENCODER, ENCODER, stage_weights=(0.1, 0.01, 3.0))(student, teacher)
    for (name, loss), weight in zip(found.items(), (0.1, 0.01, 3.0), strict=True):
        torch.testing.assert_close(loss, weight * plain[name])
    with pytest.raises(RecipeError, match="3 numbers"):
        Review(ENCODER, ENCODER, stage_weights=(1.0,))


def test_rectangles_and_sizes_that_differ_on_one_side_meet_on_the_teachers_grid():
    student, teacher = features(ENCODER), features(ENCODER, (16, 16), seed=5)
    losses = Review(ENCODER, ENCODER)(student, teacher)
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("how", ["teacher_std", "layernorm"])
def test_the_scale_of_the_teacher_may_be_taken_out(how):
    student, teacher = features(ENCODER), features(ENCODER, seed=5)
    larger = Segmentation(teacher.logits, {name: 50 * feature for name, feature in teacher.features.items()})
    distiller = Review(ENCODER, ENCODER, normalise=how)
    one, two = distiller(student, teacher), distiller(student, larger)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    assert torch.isfinite(normalised(torch.zeros(2, 3, 4, 4), how)).all()


def test_group_norm_makes_a_sample_independent_of_its_batch():
    distiller = Review(ENCODER, ENCODER, norm="group")
    student, teacher = features(ENCODER), features(ENCODER, seed=5)

    def half(whole: Segmentation, i: int) -> Segmentation:
        return Segmentation(whole.logits[[i]], {name: f[[i]] for name, f in whole.features.items()})

    whole, parts = distiller(student, teacher), [distiller(half(student, i), half(teacher, i)) for i in (0, 1)]
    for name, loss in whole.items():
        torch.testing.assert_close(loss, (parts[0][name] + parts[1][name]) / 2)


def test_fusions_depend_on_their_seed_alone():
    before = torch.random.get_rng_state()
    one, two, three = (Review(ENCODER, ENCODER, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["stages.layer1.conv1.0.weight"], three["stages.layer1.conv1.0.weight"])

"""SIKD's networks give the original's numbers, alone and in one whole step of distillation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.data.loading import Batch
from preceptor.distillers import zoo as distillers
from preceptor.errors import RecipeError
from preceptor.learning.class_mean import class_mean
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.tasks import Distilled, FrozenTeacher, Lesson
from preceptor.originals.sikd import STUDENT
from preceptor.segmentors.base import Segmentation, Tap, learnable_parameters
from preceptor.segmentors.sikd_unet import PlainUNet
from preceptor.weights import convert

FOLDER = Path(__file__).parents[1] / "golden"
TAPS = {"Conv5": "encoder5", "Up_conv5": "decoder4", "Up_conv3": "decoder2", "feature": "decoder1"}


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_network_equals_the_original_through_the_importer(golden, name):
    case = golden(f"sikd_{name}_64")
    imported = convert(case.state, f"sikd-{name}")
    assert imported.segmentor["options"] == {"skips": name == "student"}
    assert not imported.dropped
    network = imported.network()
    with torch.no_grad():
        found = network(case.inputs["image"])
        up = network.ups[3](found.features["encoder5"])
    for theirs, ours in TAPS.items():
        case.assert_equal(theirs, found.features[ours])
    case.assert_equal("Up5", up)
    case.assert_equal("logits", found.logits)


@pytest.mark.slow
def test_a_whole_step_of_distillation_equals_the_original_in_double(golden: Callable[[str], Any]):
    case = golden("sikd_kd_step_64")
    changed = {key: list(shape) for key, shape in case.facts["teacher_state_differences"]}
    teachers = {key: case.filled(key, changed[key]) if key in changed else tensor for key, tensor in case.state.items()}
    student = convert(case.state, "sikd-student").network().double()
    teacher = FrozenTeacher(convert(teachers, "sikd-teacher").network().double(), class_mean)
    hint = distillers.build(
        "fitnet", student_taps=student.taps, teacher_taps=teacher.network.taps, taps={"decoder1": "decoder1"}
    )
    assert not list(hint.parameters())  # equal widths need no adapter
    task = Distilled(student, {"teacher": teacher}, [Lesson(hint, weight=2.0)], segmentation_loss("ce")).train()
    batch = Batch(case.array("input.image").double(), case.array("input.label")[:, 0].long(), ["a", "b"])

    case.assert_equal("image_mean", class_mean(batch)[0])
    case.assert_equal("feature_teacher", teacher(batch).features["decoder1"])
    seen = []
    student.register_forward_hook(lambda module, given, found: seen.append(found))
    losses = task(batch)
    losses["loss"].backward()
    teacher.check_unchanged()
    assert not teacher.network.training
    case.assert_equal("logits", seen[0].logits)
    case.assert_equal("feature_student", seen[0].features["decoder1"])
    for theirs, ours in (("loss_ce", "segmentation"), ("loss_kd", "fitnet/decoder1"), ("loss", "loss")):
        case.assert_equal(theirs, losses[ours])
    gradients = {key: parameter.grad for key, parameter in student.named_parameters()}
    state = student.state_dict()
    kinds = {"grad": gradients, "after": state}
    compared = 0
    for output in case.outputs:
        kind, _, key = output.partition(".")
        if kind in kinds:
            (ours,) = STUDENT.rename({key: state["head.bias"]})[0]
            case.assert_equal(output, kinds[kind][ours])
            compared += 1
    assert compared == 14


@pytest.mark.parametrize(("skips", "count"), [(True, 34_526_084), (False, 31_392_644)])
def test_base_networks_have_the_published_numbers_of_parameters(skips, count):
    with torch.device("meta"):
        network = PlainUNet(1, 4, skips=skips)
    assert learnable_parameters(network) == count
    assert (network.taps[-1].name, network.taps[-1].channels, network.taps[-1].stride) == ("decoder1", 64, 1)


def test_it_starts_as_published():
    torch.manual_seed(0)
    network = PlainUNet(1, 4, size="small")
    weight = network.decoder[1][0].weight
    assert weight.std().item() == pytest.approx((2 / (weight.shape[1] * 9)) ** 0.5, rel=0.02)
    assert not any(bias.any() for name, bias in network.named_parameters() if name.endswith("bias"))
    scales = torch.cat([module.weight for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(("asked", "has"), [("teacher", True), ("student", False)])
def test_a_checkpoint_of_the_other_network_is_refused(asked, has):
    network = PlainUNet(1, 4, width=2, skips=has)
    state = {_theirs(key): tensor for key, tensor in network.state_dict().items()}
    with pytest.raises(RecipeError, match=f"the other network of SIKD[\\s\\S]*sikd-{'student' if has else 'teacher'}"):
        convert(state, f"sikd-{asked}")


def _theirs(key: str) -> str:
    part, _, rest = key.partition(".")
    if part == "head":
        return f"Conv_1x1.{rest}"
    number, _, rest = rest.partition(".")
    name, first, inner = {"encoder": ("Conv", 1, "conv"), "ups": ("Up", 2, "up"), "decoder": ("Up_conv", 2, "conv")}[
        part
    ]
    return f"{name}{int(number) + first}.{inner}.{rest}"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": "huge"}, "no such size"), ({"width": 0}, "needs a channel"), ({"classes": 1}, "two classes")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        PlainUNet(**options)


def test_its_loss_is_cross_entropy_and_twice_the_squared_error():
    """The case `ce_plus_2_mse`, with its gradients; `hint_mse` is its second part."""
    source = FOLDER / "sikd_textdiff_losses"
    (case,) = (c for c in json.loads(source.with_suffix(".json").read_text())["cases"] if c["name"] == "ce_plus_2_mse")
    expected, near = case["expected"], case["tolerance"]
    with np.load(source.with_suffix(".npz")) as arrays:
        stored = {**case["inputs"], **expected}
        given = {key: torch.from_numpy(arrays[at["npz"]]) for key, at in stored.items() if isinstance(at, dict)}
    logits, feature = (given[key].requires_grad_() for key in ("logits", "feature_student"))
    tap = (Tap("decoder1", feature.shape[1], 1),)
    answers = (Segmentation(logits, {"decoder1": each}) for each in (feature, given["feature_teacher"]))
    (mse,) = distillers.build("fitnet", student_taps=tap, teacher_taps=tap)(*answers).values()
    ce = segmentation_loss("ce")(logits, given["target"].reshape(len(logits), *logits.shape[2:]))
    total = ce + case["inputs"]["weight"] * mse
    total.backward()
    assert [ce.item(), mse.item(), total.item()] == pytest.approx(
        [expected[key] for key in ("ce", "mse", "total")], rel=near["rtol"], abs=near["atol"]
    )
    torch.testing.assert_close(logits.grad, given["grad_logits"], **near)
    torch.testing.assert_close(feature.grad, given["grad_feature_student"], **near)

"""What every distiller keeps, whatever its formula."""

import pytest
import torch

from preceptor.distillers.zoo import DISTILLERS, build
from preceptor.segmentors.base import Segmentation, Tap

CHANNELS = {"deep": (6, 4), "fine": (5, 2)}
VARIANTS = [
    *((name, {}) for name in DISTILLERS),
    ("kd", {"temperature": 4.0}),
    ("cwd", {"on": "features", "temperature": 1.0}),
    ("cwd", {"on": "features", "official_reshape": True}),
    ("cta", {"official_temperature": True}),
]
every = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=[f"{n}-{o}" if o else n for n, o in VARIANTS])


def taps(widths: dict[str, int] | None = None) -> tuple[Tap, ...]:
    return tuple(Tap(name, (widths or {}).get(name, c), stride) for name, (c, stride) in CHANNELS.items())


def network(seed: int, *, batch: int = 3, scale: float = 1.0, widths: dict[str, int] | None = None) -> Segmentation:
    draw = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, 3, 16, 8, generator=draw)
    features = {
        tap.name: (scale * torch.randn(batch, tap.channels, 16 // tap.stride, 8 // tap.stride, generator=draw))
        for tap in taps(widths)
    }
    for tensor in (logits, *features.values()):
        tensor.requires_grad_()
    return Segmentation(logits, features)


def make(name: str, options: dict, widths: dict[str, int] | None = None) -> torch.nn.Module:
    return build(name, student_taps=taps(widths), teacher_taps=taps(), **options)


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


@every
def test_equal_networks_cost_least(name, options):
    distiller, teacher = make(name, options), network(0)
    same = total(distiller(network(0), teacher)).item()
    assert same < total(distiller(network(1), teacher)).item()
    if name != "cta":  # InfoNCE has a floor above zero
        assert abs(same) < 1e-5


@every
def test_losses_are_named_float32_scalars_inside_autocast(name, options):
    distiller = make(name, options, {"deep": 9})
    student, teacher = network(1, widths={"deep": 9}), network(0)
    plain = distiller(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = distiller(student, teacher)
    assert plain
    assert inside.keys() == plain.keys()
    for key, loss in inside.items():
        assert key.split("/")[0] == name
        assert loss.dtype == torch.float32
        assert loss.shape == ()
        assert torch.equal(loss, plain[key])


@every
def test_gradient_reaches_student_and_adapters_and_nothing_else(name, options):
    widths = {"deep": 9}
    distiller = make(name, options, widths)
    student, teacher = network(1, widths=widths), network(0)
    total(distiller(student, teacher)).backward()
    assert teacher.logits.grad is None
    assert all(feature.grad is None for feature in teacher.features.values())
    reached = [student.logits.grad, *(feature.grad for feature in student.features.values())]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in reached)
    for parameter in distiller.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@every
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_extreme_inputs_stay_finite(name, options, scale):
    distiller = make(name, options)
    for teacher in (network(0, scale=scale), network(1, scale=scale)):
        student = network(1, scale=scale)
        loss = total(distiller(student, teacher))
        loss.backward()
        assert torch.isfinite(loss)
        for tensor in (student.logits, *student.features.values()):
            assert tensor.grad is None or torch.isfinite(tensor.grad).all()


@every
def test_order_of_the_batch_does_not_matter(name, options):
    distiller = make(name, options)

    def turned(one: Segmentation) -> Segmentation:
        return Segmentation(one.logits.flip(0), {key: feature.flip(0) for key, feature in one.features.items()})

    student, teacher = network(1), network(0)
    torch.testing.assert_close(
        total(distiller(turned(student), turned(teacher))), total(distiller(student, teacher)), rtol=1e-5, atol=1e-6
    )


@every
def test_ignored_labels_leave_the_rest_finite(name, options):
    target = torch.full((3, 16, 8), 255)
    target[0, :8] = 1
    assert torch.isfinite(total(make(name, options)(network(1), network(0), target)))


@every
def test_grids_may_differ(name, options):
    small = network(1)
    half = Segmentation(small.logits[..., ::2, ::2], {k: f[..., ::2, ::2] for k, f in small.features.items()})
    assert torch.isfinite(total(make(name, options)(half, network(0))))


@every
def test_a_single_logit_may_be_compared(name, options):
    def binary(seed: int) -> Segmentation:
        one = network(seed)
        return Segmentation(one.logits[:, :1], one.features)

    assert torch.isfinite(total(make(name, options)(binary(1), binary(0))))

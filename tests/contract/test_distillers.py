"""What every distiller keeps, whatever its formula."""

from functools import partial

import pytest
import torch

from preceptor.distillers.pairs import pair_taps
from preceptor.distillers.zoo import DISTILLERS, build, options_of
from preceptor.errors import RecipeError
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Segmentation, Tap
from tests.contract.test_segmentors import FIRST, shown

SIDES = (16, 8)
CLASSES = 3
TAPS = (
    Tap("stage1", 4, 2, "encoder"),
    Tap("stage2", 6, 4, "encoder"),
    Tap("stage1_preact", 4, 2, "preact"),
    Tap("stage2_preact", 6, 4, "preact"),
    Tap("deep", 6, 4, "decoder"),
    Tap("fine", 5, 2, "decoder"),
)
WIDER = tuple(Tap(tap.name, tap.channels + 3, tap.stride, tap.group) for tap in TAPS)
"""The same places with other widths: what has adapters needs them."""
FOREIGN = (
    Tap("patches", 7, 2, "encoder"),
    Tap("merged", 9, 8, "encoder"),
    Tap("bridge", 7, 8, "decoder"),
    Tap("logits", CLASSES, 4, "logits"),
)
"""Another kind of network, whose logits are native at stride 4."""

LOGITS = {"kd", "dkd", "dist", "cwd", "boundary"}
"""What compares logits by default."""
WITH_LABELS = {"dkd", "boundary", "ifvd"}
FLOORS = {"cta"}
"""InfoNCE has a floor above zero."""

VARIANTS = [
    *((name, {}) for name in DISTILLERS),
    ("kd", {"standardise": True}),
    ("kd", {"preset": "mmseg-kd"}),
    ("dkd", {"at": "label"}),
    ("dkd", {"standardise": True}),
    ("dist", {"per_image": True, "temperature": 4.0}),
    ("dist", {"skip_constant": False}),
    ("cwd", {"standardise": True, "at": "input"}),
    ("cwd", {"on": "features", "temperature": 1.0}),
    ("cwd", {"on": "features", "adapter_norm": True, "interpolation": "nearest"}),
    ("cwd", {"on": "features", "official_reshape": True}),
    ("boundary", {"reduction": "sum", "temperature": 2.0}),
    ("cta", {"official_temperature": True}),
    ("at", {"p": 3, "reduction": "sum", "weights": [0.5, 2.0]}),
    ("review", {"mid": 4, "norm": "group", "normalise": "teacher_std"}),
    ("review", {"normalise": "layernorm", "stage_weights": [1, 0.1]}),
    ("fitnet", {"normalise": "pearson", "batch_norm": True}),
    ("skd", {"pool": "half", "detach_norm": True}),
    ("mgd", {"ratio": 0.75, "width": 0, "deepest": False}),
]
every = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=[f"{n}-{o}" if o else n for n, o in VARIANTS])
every_logits = pytest.mark.parametrize(
    ("name", "options"), [(n, o) for n, o in VARIANTS if n in LOGITS and o.get("on") != "features"]
)


def network(seed: int, taps: tuple[Tap, ...] = TAPS, *, batch: int = 3, scale: float = 1.0, classes: int = CLASSES):
    draw = torch.Generator().manual_seed(seed)

    def made(channels: int, stride: int) -> torch.Tensor:
        size = [-(-side // stride) for side in SIDES]
        return (scale * torch.randn(batch, channels, *size, generator=draw)).requires_grad_()

    features = {tap.name: made(classes if tap.name == "logits" else tap.channels, tap.stride) for tap in taps}
    return Segmentation(made(classes, 1), features)


def changed(one: Segmentation, change) -> Segmentation:
    """With `change` applied to every tensor, as leaves."""
    made = {key: change(value.detach()).requires_grad_() for key, value in one.features.items()}
    return Segmentation(change(one.logits.detach()).requires_grad_(), made)


def tensors(one: Segmentation) -> list[torch.Tensor]:
    return [one.logits, *one.features.values()]


def labels(batch: int = 3, classes: int = CLASSES) -> torch.Tensor:
    """Blocks of labels, so that they survive coarser grids, with a part that is ignored."""
    blocks = torch.randint(
        0, classes, (batch, SIDES[0] // 4, SIDES[1] // 4), generator=torch.Generator().manual_seed(9)
    )
    target = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    target[0, :4] = 255
    return target


def make(name: str, options: dict, student: tuple[Tap, ...] = TAPS, teacher: tuple[Tap, ...] = TAPS, seed: int = 0):
    return build(name, student_taps=student, teacher_taps=teacher, seed=seed, **options)


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def loss_of(name: str, options: dict, student: Segmentation, teacher: Segmentation, target=None) -> torch.Tensor:
    return total(make(name, options)(student, teacher, labels() if target is None else target))


@every
def test_equal_networks_cost_least(name, options):
    distiller = make(name, options)
    if any(True for _ in distiller.parameters()):
        pytest.skip("what it compares first passes through layers of its own")
    same = total(distiller(network(0), network(0), labels())).item()
    assert same < total(distiller(network(1), network(0), labels())).item()
    if name not in FLOORS:
        assert abs(same) < 1e-4  # the correlations have an epsilon


@every
def test_its_own_layers_learn(name, options):
    distiller = make(name, options, TAPS, WIDER)
    own = list(distiller.parameters())
    if not own:
        pytest.skip("it has none")
    student, teacher, target = network(1), network(0, WIDER), labels()
    optimiser = torch.optim.Adam(own, lr=1e-3)
    values = []
    for _ in range(12):
        loss = total(distiller(student, teacher, target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert min(values[-3:]) < values[0]


@every
def test_losses_are_named_float32_scalars_inside_autocast(name, options):
    student, teacher = network(1, WIDER), network(0)
    plain = make(name, options, WIDER)(student, teacher, labels())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make(name, options, WIDER)(student, teacher, labels())
    assert plain
    assert inside.keys() == plain.keys()
    for key, loss in inside.items():
        assert key.split("/")[0] == name
        assert loss.dtype == torch.float32
        assert loss.shape == ()
        assert torch.equal(loss, plain[key])


@every
def test_half_precision_is_cast_up_and_double_stays(name, options):
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        student, teacher = (changed(network(seed), partial(torch.Tensor.to, dtype=dtype)) for seed in (1, 0))
        loss = total(make(name, options).to(expected)(student, teacher, labels()))
        assert loss.dtype == expected
        loss.backward()


@every
def test_gradient_reaches_student_and_adapters_and_nothing_else(name, options):
    distiller = make(name, options, WIDER)
    student, teacher = network(1, WIDER), network(0)
    total(distiller(student, teacher, labels())).backward()
    assert all(tensor.grad is None for tensor in tensors(teacher))
    reached = [tensor.grad for tensor in tensors(student)]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in reached)
    for parameter in distiller.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@every
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_extreme_inputs_stay_finite(name, options, scale):
    distiller = make(name, options)
    for teacher in (network(0, scale=scale), network(1, scale=scale), network(0)):
        student = network(1, scale=scale)
        loss = total(distiller(student, teacher, labels()))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(tensor.grad is None or torch.isfinite(tensor.grad).all() for tensor in tensors(student))


@every
def test_constant_maps_stay_finite(name, options):
    distiller = make(name, options)
    student = changed(network(1), lambda x: x[..., :1, :1].expand_as(x).clone())
    for teacher in (network(0), changed(network(0), lambda x: torch.full_like(x, -2.5))):
        loss = total(distiller(student, teacher, labels()))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(tensor.grad is None or torch.isfinite(tensor.grad).all() for tensor in tensors(student))


@every
def test_order_of_the_batch_does_not_matter(name, options):
    options = {**options, "ratio": 0.0} if name == "mgd" else options  # every image is masked otherwise

    def turned(one: Segmentation) -> Segmentation:
        return changed(one, lambda x: x.flip(0))

    straight = loss_of(name, options, network(1), network(0))
    other = loss_of(name, options, turned(network(1)), turned(network(0)), labels().flip(0))
    torch.testing.assert_close(other, straight, rtol=1e-5, atol=1e-6)


@every
def test_a_batch_of_ignored_labels_stays_finite(name, options):
    student = network(1)
    loss = loss_of(name, options, student, network(0), torch.full((3, *SIDES), 255))
    assert torch.isfinite(loss)
    if name in LOGITS and options.get("on") != "features":
        assert loss == 0
    loss.backward()
    assert all(tensor.grad is None or torch.isfinite(tensor.grad).all() for tensor in tensors(student))


@every_logits
def test_logits_at_ignored_pixels_change_nothing(name, options):
    target = labels()
    ignored = (target == 255).unsqueeze(1)
    expected = loss_of(name, options, network(1), network(0))
    for garbage in (1e9, torch.nan, torch.inf):
        student, teacher = (
            Segmentation(torch.where(ignored, garbage, network(seed).logits.detach()).requires_grad_(), {})
            for seed in (1, 0)
        )
        loss = loss_of(name, options, student, teacher)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        assert torch.isfinite(student.logits.grad).all()
        assert not torch.where(ignored, student.logits.grad, 0).any()


@every_logits
def test_coarser_logits_are_compared_where_they_are_coarse(name, options):
    """A teacher that answers at stride 4 spares the enlargement, and an ignored region stays without influence."""
    target = labels()
    losses = []
    for garbage in (0.0, torch.nan):
        ignored = (target == 255).unsqueeze(1)
        student = network(1)
        student = Segmentation(torch.where(ignored, garbage, student.logits), {})
        losses.append(total(make(name, options, TAPS, FOREIGN)(student, network(0, FOREIGN), target)))
    assert torch.isfinite(losses[0])
    torch.testing.assert_close(losses[1], losses[0])


@every
@pytest.mark.parametrize("swapped", [False, True])
def test_any_two_networks_can_be_compared(name, options, swapped):
    mine, theirs = (FOREIGN, TAPS) if swapped else (TAPS, FOREIGN)
    loss = total(make(name, options, mine, theirs)(network(1, mine), network(0, theirs), labels()))
    assert torch.isfinite(loss)


@every
def test_grids_may_differ(name, options):
    half = changed(network(1), lambda x: x[..., ::2, ::2])
    assert torch.isfinite(loss_of(name, options, half, network(0)))


@every
def test_a_single_logit_may_be_compared(name, options):
    target = labels(classes=2)
    single = loss_of(name, options, network(1, classes=1), network(0, classes=1), target)
    assert torch.isfinite(single)
    mixed = loss_of(name, options, network(1, classes=1), network(0, classes=2), target)
    assert torch.isfinite(mixed)


@every
def test_labels_are_asked_for_where_they_are_needed(name, options):
    distiller = make(name, options)
    if name in WITH_LABELS:
        with pytest.raises(RecipeError, match="needs labels"):
            distiller(network(1), network(0))
    else:
        assert torch.isfinite(total(distiller(network(1), network(0))))


@every
def test_its_own_layers_depend_on_the_seed_alone(name, options):
    torch.manual_seed(1)
    one = make(name, options, WIDER, seed=3)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two, other = make(name, options, WIDER, seed=3), make(name, options, WIDER, seed=4)
    total(two(network(1, WIDER), network(0), labels()))
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [dict(distiller.named_parameters()) for distiller in (one, make(name, options, WIDER, seed=3), other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    drawn = [key for key, value in weights[0].items() if value.unique().numel() > 1]
    assert all(not torch.equal(weights[0][key], weights[2][key]) for key in drawn)


@pytest.mark.parametrize("name", DISTILLERS)
def test_every_option_has_a_default(name):
    assert all(default is not ... for default in options_of(name).values())
    make(name, {option: default for option, default in options_of(name).items() if option != "seed"})


@pytest.fixture(scope="module")
def taps_of_the_zoo():
    """From segmentor to its taps; weights are not made."""
    with torch.device("meta"):
        return {
            name: zoo.build(name, in_channels=1, classes=2, condition=shown(name), **options).taps
            for name, options in FIRST.values()
        }


def compared(student: tuple[Tap, ...], teacher: tuple[Tap, ...], group: str) -> list[set[int]]:
    """The strides among which pairs of the group are looked for, of each network."""
    found = [{tap.stride for tap in taps if tap.group == group} for taps in (student, teacher)]
    if all(found):
        return found
    if group == "preact":
        return compared(student, teacher, "encoder")
    return [{tap.stride for tap in taps if tap.group in ("encoder", "decoder")} for taps in (student, teacher)]


@pytest.mark.parametrize("group", ["encoder", "preact", "decoder"])
def test_any_two_networks_of_the_zoo_pair_deep_with_deep_and_like_with_like(taps_of_the_zoo, group):
    for student, own in taps_of_the_zoo.items():
        for teacher, others in taps_of_the_zoo.items():
            pairs = [(one.stride, other.stride) for one, other in pair_taps(own, others, group=group)]
            told = f"{student} <- {teacher}: {pairs}"
            assert not any(a < c and b > d for a, b in pairs for c, d in pairs), told
            mine, theirs = compared(own, others, group)
            assert mine & theirs <= {one for one, other in pairs if one == other}, told


@pytest.mark.parametrize("group", ["encoder", "preact"])
def test_layers_of_resnets_pair_with_their_likes(taps_of_the_zoo, group):
    resnets = [name for name, taps in taps_of_the_zoo.items() if "layer4" in {tap.name for tap in taps}]
    assert len(resnets) == 5
    for student in resnets:
        for teacher in resnets:
            pairs = pair_taps(taps_of_the_zoo[student], taps_of_the_zoo[teacher], group=group)
            assert [one.name for one, _ in pairs] == [other.name for _, other in pairs], (student, teacher)
            assert len(pairs) == 4


def test_the_unguided_student_pairs_with_the_guided_teacher_by_name(taps_of_the_zoo):
    pairs = pair_taps(taps_of_the_zoo["unguided"], taps_of_the_zoo["guided"])
    assert [(one.name, other.name) for one, other in pairs] == [(f"guide{s}", f"guide{s}") for s in (32, 16, 8)]

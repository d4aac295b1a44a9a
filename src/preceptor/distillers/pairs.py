"""Which feature of the student is compared with which of the teacher, and how the two are brought to one shape."""

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preceptor.distillers.base import full_precision
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Group, Segmentation, Tap

Align = Literal["smaller", "student", "teacher", "larger"]
Interpolation = Literal["bilinear", "nearest"]
Pairs = tuple[tuple[Tap, Tap], ...]

_NEXT_BEST: dict[Group, Group] = {"preact": "encoder"}
"""Which group stands in for one that a network lacks; for others every feature does."""


def pair_taps(
    student_taps: tuple[Tap, ...],
    teacher_taps: tuple[Tap, ...],
    taps: dict[str, str] | None = None,
    group: Group = "decoder",
) -> Pairs:
    """Pairs (student tap, teacher tap), in the order of the student's taps.

    taps: from student tap to teacher tap. Left out, any two networks are paired, among their taps of `group` (where
    either has none: of "encoder" for "preact", else among all features) by the first rule that fits: taps of equal
    names; in order, where both have equally many; for every stride that both have, the last taps of that stride; the
    last of each. Names and order fit where no finer tap of the student meets a coarser one of the teacher, and strides
    that both have meet. Names alone decide where both networks have the same ones, as a dilated ResNet and a plain one.
    Raises RecipeError for unknown names, with the nearest known one, and for a network without taps.
    """
    if taps is not None:
        students, teachers = {tap.name: tap for tap in student_taps}, {tap.name: tap for tap in teacher_taps}
        if not taps:
            raise RecipeError("no pair of taps is named", where="distill.taps", expected=f"some of {list(students)}")
        _refuse_unknown("student", taps.keys(), students)
        _refuse_unknown("teacher", taps.values(), teachers)
        return tuple((students[name], teachers[other]) for name, other in taps.items())
    mine, theirs = _of_group(student_taps, teacher_taps, group)
    named = {tap.name: tap for tap in theirs}
    pairs = [(tap, named[tap.name]) for tap in mine if tap.name in named]
    alike = {tap.name for tap in mine} == set(named)
    if pairs and _in_step(pairs) and (alike or _share_strides(pairs, mine, theirs)):
        return tuple(pairs)
    if len(mine) == len(theirs):
        pairs = list(zip(mine, theirs, strict=True))
        if _in_step(pairs) and _share_strides(pairs, mine, theirs):
            return tuple(pairs)
    last, others = {tap.stride: tap for tap in mine}, {tap.stride: tap for tap in theirs}
    pairs = [(tap, others[tap.stride]) for tap in mine if tap is last[tap.stride] and tap.stride in others]
    return tuple(pairs or [(mine[-1], theirs[-1])])


def _in_step(pairs: Sequence[tuple[Tap, Tap]]) -> bool:
    """Whether the strides run in one order on both sides: names such as `decoder1` count up here and down there."""
    return not any(a.stride < c.stride and b.stride > d.stride for a, b in pairs for c, d in pairs)


def _share_strides(pairs: Sequence[tuple[Tap, Tap]], mine: Sequence[Tap], theirs: Sequence[Tap]) -> bool:
    """Whether every stride that both networks have is compared with itself, or none is common."""
    common = {tap.stride for tap in mine} & {tap.stride for tap in theirs}
    return common <= {one.stride for one, other in pairs if one.stride == other.stride}


def describe_pairs(pairs: Pairs) -> str:
    """The pairs as text, one a line: `layer4 [512, s8] <- layer4 [2048, s8]` is student <- teacher."""
    return "\n".join(" <- ".join(f"{tap.name} [{tap.channels}, s{tap.stride}]" for tap in pair) for pair in pairs)


def deep_first(pairs: Pairs, student_taps: tuple[Tap, ...]) -> Pairs:
    """The pairs from the deepest to the shallowest tap of the student.

    Told by stride, then by the place among `student_taps`: encoders list theirs from shallow to deep, decoders, which
    come after encoders of their stride, from deep to shallow.
    """
    places = {tap: -place if tap.group == "decoder" else place for place, tap in enumerate(student_taps)}
    return tuple(sorted(pairs, key=lambda pair: (pair[0].stride, places[pair[0]]), reverse=True))


def per_pair(option: str, weights: Sequence[float], pairs: Pairs) -> tuple[float, ...]:
    """One weight a pair: those given, or 1 each where none are. Raises RecipeError where they do not fit the pairs."""
    if not weights:
        return (1.0,) * len(pairs)
    if len(weights) != len(pairs) or not all(isinstance(w, int | float) and math.isfinite(w) for w in weights):
        raise RecipeError(
            "there is not one weight for each pair of taps",
            where=f"distill.options.{option}",
            found=list(weights),
            expected=f"{len(pairs)} numbers",
            offenders=describe_pairs(pairs).splitlines(),
        )
    return tuple(map(float, weights))


def _of_group(student: tuple[Tap, ...], teacher: tuple[Tap, ...], group: Group) -> tuple[list[Tap], list[Tap]]:
    """The taps of the group that stands where both networks have it, else the next best, else all features."""
    wanted: Group | None = group
    while wanted is not None:
        mine, theirs = ([tap for tap in taps if tap.group == wanted] for taps in (student, teacher))
        if mine and theirs:
            return mine, theirs
        wanted = _NEXT_BEST.get(wanted)
    return _features("student", student), _features("teacher", teacher)


def _features(whose: str, taps: tuple[Tap, ...]) -> list[Tap]:
    """All taps but logits, and but those before the ReLU where the network has others: they would count twice."""
    features = [tap for tap in taps if tap.group in ("encoder", "decoder")] or [t for t in taps if t.group == "preact"]
    if not features:
        raise RecipeError(
            f"the {whose} has no feature that could be compared",
            where="distill.taps",
            found=f"taps {[tap.name for tap in taps]}",
            remedy="name taps where the network is made, or choose a distiller of logits, such as kd",
        )
    return features


def _refuse_unknown(whose: str, names: Iterable[str], known: dict[str, Tap]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        near = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1, cutoff=0.4)]
        raise RecipeError(
            f"the {whose} has no such tap",
            where="distill.taps",
            offenders=unknown,
            expected=f"one of {list(known)}",
            remedy=f"did you mean {', '.join(near)}?" if near else "",
        )


def to_one_grid(
    student: Tensor, teacher: Tensor, align: Align = "smaller", interpolation: Interpolation = "bilinear"
) -> tuple[Tensor, Tensor]:
    """Both [B, C, H, W] maps on one grid: bilinear, corners not aligned and not antialiased, or nearest.

    align: whose height and width are kept; "smaller" and "larger" keep the smaller and larger of each side.
    """
    size = common_size(student, teacher, align)
    return resize(student, size, interpolation), resize(teacher, size, interpolation)


def common_size(student: Tensor, teacher: Tensor, align: Align) -> tuple[int, int]:
    """Height and width on which two [B, C, H, W] maps meet."""
    mine, theirs = ((feature.shape[-2], feature.shape[-1]) for feature in (student, teacher))
    if align == "student":
        return mine
    if align == "teacher":
        return theirs
    choose = max if align == "larger" else min
    return choose(mine[0], theirs[0]), choose(mine[1], theirs[1])


def check_align(align: str) -> None:
    """Raise RecipeError for an unknown grid."""
    if align not in get_args(Align):
        raise RecipeError(
            "unknown grid", where="distill.options.align", found=align, expected=f"one of {', '.join(get_args(Align))}"
        )


def resize(feature: Tensor, size: tuple[int, ...], interpolation: Interpolation = "bilinear") -> Tensor:
    """[B, C, H, W] at height and width `size`; unchanged where it has them."""
    if tuple(feature.shape[-2:]) == tuple(size):
        return feature
    if interpolation == "nearest":
        return F.interpolate(feature, size=size, mode="nearest")
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)


def tokens(feature: Tensor) -> Tensor:
    """[B, C, H, W] as tokens [B, H * W, C] in row-major order."""
    return feature.flatten(2).transpose(1, 2)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Weights made inside depend on `seed` alone, and the random state outside is as if nothing had been drawn.

    So a student with adapters starts from the same weights as its control.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would change the accelerators' state for good
        yield


class FeaturePairs(nn.Module):
    """The paired features of student and teacher in float32, on one grid and, where asked, with one width.

    group: where in the networks the pairs are looked for when none are named (`pair_taps`). align: their common grid;
    None leaves both as they are. adapt: make a 1x1 convolution from the student's to the teacher's channels where
    these differ; its weights are drawn from `seed`.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        adapt: bool,
        align: Align | None = "smaller",
        group: Group = "decoder",
        bias: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if align is not None:
            check_align(align)
        self.pairs = pair_taps(student_taps, teacher_taps, taps, group)
        self.align: Align | None = align
        self.adapters = nn.ModuleDict()
        with drawn_from(seed):
            for mine, theirs in self.pairs:
                if adapt and mine.channels != theirs.channels:
                    self.adapters[module_key(mine.name)] = nn.Conv2d(mine.channels, theirs.channels, 1, bias=bias)

    def forward(self, student: Segmentation, teacher: Segmentation) -> dict[str, tuple[Tensor, Tensor]]:
        """From student tap to (student, teacher), each [B, C, H, W] float32; the teacher's carry no gradient.

        float64 stays as it is.
        """
        result = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            for mine, theirs in self.pairs:
                one = full_precision(student.features[mine.name])
                two = full_precision(teacher.features[theirs.name].detach())
                size = None if self.align is None else common_size(one, two, self.align)
                # Adapting and resizing commute (the bilinear weights of a position sum to 1): the smaller grid is
                # adapted, which costs less.
                if size is not None and size[0] * size[1] <= one.shape[-2] * one.shape[-1]:
                    one = self._adapted(mine.name, resize(one, size))
                else:
                    one = self._adapted(mine.name, one)
                result[mine.name] = (one, two) if size is None else (resize(one, size), resize(two, size))
        return result

    def _adapted(self, name: str, feature: Tensor) -> Tensor:
        key = module_key(name)
        return self.adapters[key](feature) if key in self.adapters else feature


def pairs_of(distiller: nn.Module) -> Pairs:
    """The pairs of taps that a distiller compares; none where it compares logits."""
    return tuple(pair for part in distiller.modules() if isinstance(part, FeaturePairs) for pair in part.pairs)


def module_key(tap: str) -> str:
    """The name of a tap as the name of a module, which may hold no dots."""
    return tap.replace(".", "_")

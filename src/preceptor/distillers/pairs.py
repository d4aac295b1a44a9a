"""Which feature of the student is compared with which of the teacher, and how the two are brought to one shape."""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

Align = Literal["smaller", "student", "teacher"]
Interpolation = Literal["bilinear", "nearest"]


def pair_taps(
    student_taps: tuple[Tap, ...], teacher_taps: tuple[Tap, ...], taps: dict[str, str] | None = None
) -> tuple[tuple[Tap, Tap], ...]:
    """Pairs (student tap, teacher tap).

    taps: from student tap to teacher tap. Left out, a student tap takes the teacher's tap of the same name, or else
    the only one of its stride; student taps without a partner are left out.
    Raises RecipeError for unknown names, for a stride that several taps share, and where no pair is left.
    """
    students = {tap.name: tap for tap in student_taps}
    teachers = {tap.name: tap for tap in teacher_taps}
    if taps is not None:
        if not taps:
            raise RecipeError("no pair of taps is named", where="distill.taps", expected=f"some of {sorted(students)}")
        _refuse_unknown("student", taps.keys(), students)
        _refuse_unknown("teacher", taps.values(), teachers)
        return tuple((students[name], teachers[other]) for name, other in taps.items())
    pairs = [(tap, teachers[tap.name]) for tap in student_taps if tap.name in teachers]
    left = [tap for tap in student_taps if tap.name not in teachers]
    free = [tap for tap in teacher_taps if tap.name not in students]
    for tap in left:
        equal = [other for other in free if other.stride == tap.stride]
        rivals = [other for other in left if other.stride == tap.stride]
        if len(equal) > 1 or (equal and len(rivals) > 1):
            raise RecipeError(
                f"several taps have the stride {tap.stride}",
                where="distill.taps",
                found=f"student {[t.name for t in rivals]}, teacher {[t.name for t in equal]}",
                remedy="name the pairs: `taps: {student tap: teacher tap}`",
            )
        pairs += [(tap, other) for other in equal]
    if not pairs:
        raise RecipeError(
            "student and teacher have no tap of the same name or stride",
            where="distill.taps",
            found=f"student {_list(student_taps)}, teacher {_list(teacher_taps)}",
            remedy="name the pairs: `taps: {student tap: teacher tap}`",
        )
    return tuple(pairs)


def _refuse_unknown(whose: str, names: Iterable[str], known: dict[str, Tap]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecipeError(
            f"the {whose} has no such tap", where="distill.taps", offenders=unknown, expected=f"one of {list(known)}"
        )


def _list(taps: tuple[Tap, ...]) -> str:
    return "[" + ", ".join(f"{tap.name} (stride {tap.stride})" for tap in taps) + "]"


def to_one_grid(
    student: Tensor, teacher: Tensor, align: Align = "smaller", interpolation: Interpolation = "bilinear"
) -> tuple[Tensor, Tensor]:
    """Both [B, C, H, W] maps on one grid: bilinear, corners not aligned and not antialiased, or nearest.

    align: whose height and width are kept; "smaller" keeps the smaller of each.
    """
    if align == "student":
        size = tuple(student.shape[-2:])
    elif align == "teacher":
        size = tuple(teacher.shape[-2:])
    else:
        size = tuple(min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True))
    return resize(student, size, interpolation), resize(teacher, size, interpolation)


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


class FeaturePairs(nn.Module):
    """The paired features of student and teacher in float32, on one grid and, where asked, with one width.

    adapt: make a 1x1 convolution with bias from the student's to the teacher's channels where these differ. The
    adapters depend on `seed` alone; making them leaves the global random state as it was, so that a student with
    adapters starts from the same weights as its control.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        adapt: bool,
        align: Align = "smaller",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if align not in ("smaller", "student", "teacher"):
            raise RecipeError(
                "unknown grid", where="distill.options.align", found=align, expected="smaller, student or teacher"
            )
        self.pairs = pair_taps(student_taps, teacher_taps, taps)
        self.align: Align = align
        self.adapters = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for mine, theirs in self.pairs:
                if adapt and mine.channels != theirs.channels:
                    self.adapters[_key(mine.name)] = nn.Conv2d(mine.channels, theirs.channels, kernel_size=1)

    def forward(self, student: Segmentation, teacher: Segmentation) -> dict[str, tuple[Tensor, Tensor]]:
        """From student tap to (student, teacher), each [B, C, H, W] float32; the teacher's carry no gradient."""
        result = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            for mine, theirs in self.pairs:
                one = student.features[mine.name].float()
                two = teacher.features[theirs.name].detach().float()
                key = _key(mine.name)
                if key in self.adapters:
                    one = self.adapters[key](one)
                result[mine.name] = to_one_grid(one, two, self.align)
        return result


def _key(name: str) -> str:
    return name.replace(".", "_")  # ModuleDict allows no dots

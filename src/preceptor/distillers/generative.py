"""Masked generation: from parts of the student's feature, the whole of the teacher's is generated.

Source: Yang et al., ECCV 2022, arXiv 2205.01529 (MGD).
"""

import torch
from torch import Tensor, nn

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import Align, FeaturePairs, deep_first, drawn_from, module_key, pair_taps
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap


def generation_distance(student: Tensor, teacher: Tensor, kept: Tensor, generator: nn.Module) -> Tensor:
    """Squared error of `generator(student * kept)` against `teacher`, both [B, C, H, W], summed and divided by B.

    kept: [B, 1, H, W], 1 where the student is shown and 0 where it is masked.
    """
    return (generator(student * kept) - teacher).square().sum() / len(student)


def kept_positions(batch: int, size: tuple[int, int], ratio: float, draw: torch.Generator) -> Tensor:
    """[batch, 1, *size] float32 on the processor: 0 with probability `ratio`, else 1."""
    return (torch.rand(batch, 1, *size, generator=draw, device="cpu") >= ratio).float()


class MaskedGeneration(Distiller):
    """A masked student generates the teacher's feature (MGD); published weight 2e-5, since squares are summed.

    ratio: the share of positions that are masked, below 1. width: the most channels between the generator's two
    convolutions; 0 is the teacher's, as published, which can cost more than the student. deepest: where no taps are
    named, take the deepest pair alone, as published, instead of all.

    The masks of a step depend on `seed` and on how many steps were trained before, which the state holds: a resumed
    run draws the same. Outside training the count stands still.
    """

    step: Tensor

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        ratio: float = 0.5,
        width: int = 128,
        deepest: bool = True,
        align: Align = "smaller",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= ratio < 1:
            raise RecipeError("out of range", where="distill.options.ratio", found=ratio, expected="0 to below 1")
        if width < 0:
            raise RecipeError("out of range", where="distill.options.width", found=width, expected="1 or more, or 0")
        if taps is None and deepest:
            pairs = pair_taps(student_taps, teacher_taps)
            mine, theirs = deep_first(pairs, student_taps)[0]
            taps = {mine.name: theirs.name}
        self.ratio, self.seed = ratio, seed
        self.features = FeaturePairs(student_taps, teacher_taps, taps, adapt=True, align=align, seed=seed)
        with drawn_from(seed):
            self.generators = nn.ModuleDict(
                {module_key(mine.name): _generator(theirs.channels, width) for mine, theirs in self.features.pairs}
            )
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps."""
        # Drawn on the processor, so that every device masks the same positions.
        draw = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.step)) % 2**63)
        if self.training:
            self.step += 1
        losses = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            for tap, (mine, theirs) in self.features(student, teacher).items():
                size = (mine.shape[-2], mine.shape[-1])
                kept = kept_positions(len(mine), size, self.ratio, draw).to(mine.device, mine.dtype)
                losses[f"mgd/{tap}"] = generation_distance(mine, theirs, kept, self.generators[module_key(tap)])
        return losses


def _generator(channels: int, width: int) -> nn.Module:
    between = min(width, channels) if width else channels
    return nn.Sequential(
        nn.Conv2d(channels, between, 3, padding=1), nn.ReLU(), nn.Conv2d(between, channels, 3, padding=1)
    )

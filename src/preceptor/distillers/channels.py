"""Channel-wise distillation: every channel as a distribution over positions.

Sources: Shu et al., ICCV 2021, arXiv 2011.13256, which takes logits (temperature 4, weight 3) or features behind a 1x1
convolution (temperature 1, weight 50); TextFreeKD's `cwd` alternative on features, whose reshape is an option.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preceptor.distillers.base import Distiller
from preceptor.distillers.logits import At, labels_at, paired_logits, valid_pixels
from preceptor.distillers.pairs import Align, FeaturePairs, Interpolation, module_key, to_one_grid, tokens
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap


def channel_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """KL(teacher || student) of softmax over all positions of a channel [B, C, H, W], mean over B * C, times T^2.

    valid: [B, H, W] bool; other positions take no part, and samples without any are skipped. The logarithm is taken
    in the log domain; the original adds 1e-8 to the student's probability instead.
    """
    mine, theirs = student.flatten(2) / temperature, teacher.flatten(2) / temperature
    if valid is None:
        divergence = F.kl_div(
            F.log_softmax(mine, dim=-1), F.log_softmax(theirs, dim=-1), log_target=True, reduction="sum"
        )
        return divergence / (mine.shape[0] * mine.shape[1]) * temperature**2
    outside = ~valid.flatten(1).unsqueeze(1)
    none = outside.all(dim=-1, keepdim=True)
    # In a sample without any valid position all take part, as zeros: it has no divergence.
    filling, masked = torch.where(none, 0.0, -torch.inf), outside & ~none
    p, q = (
        torch.where(masked, 0.0, F.log_softmax(torch.where(outside, filling, maps), dim=-1)) for maps in (theirs, mine)
    )
    total = (p.exp() * (p - q)).sum()  # p - q is 0 where masked
    return total / ((~none).sum().clamp(min=1) * student.shape[1]) * temperature**2


def channel_kl_reshaped(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """As `channel_kl`, on tokens [B, N, C] whose memory is re-read as [B, C, N], as TextFreeKD's code does.

    The "channels" then mix tokens and channels; numbers obtained with that code depend on it.
    """
    batch, count, width = student.shape
    return channel_kl(
        student.reshape(batch, width, count, 1), teacher.reshape(batch, width, count, 1), temperature=temperature
    )


class ChannelKL(Distiller):
    """Divergence of every channel's distribution over positions (CWD), of logits or of features, mean over channels.

    on: logits, or features, where a 1x1 convolution without bias adapts the student's channels. standardise: z-score
    the logits of each pixel over its classes first. adapter_norm: batch normalisation after that convolution.
    official_reshape: true repeats the reshape of TextFreeKD's code, which mixes tokens and channels of features. at
    and standardise act on logits alone.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        on: Literal["logits", "features"] = "logits",
        temperature: float = 4.0,
        standardise: bool = False,
        adapter_norm: bool = False,
        official_reshape: bool = False,
        at: At = "native",
        align: Align = "smaller",
        interpolation: Interpolation = "bilinear",
        seed: int = 0,
    ) -> None:
        super().__init__()
        wrong = {
            "logits": {"taps": taps is not None, "adapter_norm": adapter_norm, "official_reshape": official_reshape},
            "features": {"standardise": standardise, "at": at != "native"},
        }[on]
        if any(wrong.values()):
            raise RecipeError(
                f"{on} do not take {' and '.join(name for name, set_ in wrong.items() if set_)}",
                where="distill.options.on",
                found=on,
                remedy=f"set `on: {'features' if on == 'logits' else 'logits'}`",
            )
        self.temperature, self.standardise, self.official_reshape = temperature, standardise, official_reshape
        self.at, self.align, self.interpolation = at, align, interpolation
        self.features: FeaturePairs | None = None
        self.norms = nn.ModuleDict()
        if on == "features":
            self.features = FeaturePairs(
                student_taps,
                teacher_taps,
                taps,
                adapt=True,
                align=align if interpolation == "bilinear" else None,
                bias=official_reshape,  # a channel's distribution over positions does not feel it
                seed=seed,
            )
            if adapter_norm:
                for mine, theirs in self.features.pairs:
                    if module_key(mine.name) in self.features.adapters:
                        self.norms[module_key(mine.name)] = nn.BatchNorm2d(theirs.channels)

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps, or `cwd` for logits.

        Positions whose label is ignored are left out, at the size of the maps by nearest neighbour; the reshape, which
        loses the positions, cannot leave any out.
        """
        with torch.autocast(student.logits.device.type, enabled=False):
            if self.features is None:
                mine, theirs = paired_logits(
                    student, teacher, self.align, self.at, self.interpolation, target, self.standardise
                )
                return {"cwd": self._compare(mine, theirs, target)}
            losses = {}
            for tap, (one, two) in self.features(student, teacher).items():
                mine, theirs = to_one_grid(one, two, self.align, self.interpolation)
                key = module_key(tap)
                mine = self.norms[key](mine) if key in self.norms else mine
                losses[f"cwd/{tap}"] = self._compare(mine, theirs, target)
            return losses

    def _compare(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> Tensor:
        if self.official_reshape:
            return channel_kl_reshaped(tokens(student), tokens(teacher), self.temperature)
        labels = None if target is None else labels_at(target, (student.shape[-2], student.shape[-1]))
        return channel_kl(student, teacher, self.temperature, valid_pixels(labels))

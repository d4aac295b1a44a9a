"""Channel-wise distillation: every channel as a distribution over positions.

Sources: Shu et al., ICCV 2021, arXiv 2011.13256; TextFreeKD's `cwd` alternative, whose reshape is an option.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller
from preceptor.distillers.logits import paired_logits, valid_pixels
from preceptor.distillers.pairs import Align, FeaturePairs, tokens
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
    keep = valid.flatten(1).unsqueeze(1)
    some = keep.any(dim=-1, keepdim=True)
    mine = torch.where(keep, mine, torch.where(some, -torch.inf, 0.0))
    theirs = torch.where(keep, theirs, torch.where(some, -torch.inf, 0.0))
    p, q = F.log_softmax(theirs, dim=-1), F.log_softmax(mine, dim=-1)
    terms = torch.where(keep, p, 0.0).exp() * (torch.where(keep, p, 0.0) - torch.where(keep, q, 0.0))
    total = torch.where(keep, terms, 0.0).sum()
    return total / (some.sum().clamp(min=1) * student.shape[1]) * temperature**2


def channel_kl_reshaped(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """As `channel_kl`, on tokens [B, N, C] whose memory is re-read as [B, C, N], as TextFreeKD's code does.

    The "channels" then mix tokens and channels; numbers obtained with that code depend on it.
    """
    batch, count, width = student.shape
    return channel_kl(
        student.reshape(batch, width, count, 1), teacher.reshape(batch, width, count, 1), temperature=temperature
    )


class ChannelKL(Distiller):
    """KL divergence of every channel's distribution over positions (CWD), of features or logits.

    official_reshape: true repeats the reshape of TextFreeKD's code, which mixes tokens and channels.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        on: Literal["features", "logits"] = "features",
        temperature: float = 1.0,
        official_reshape: bool = False,
        align: Align = "smaller",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if on not in ("features", "logits"):
            raise RecipeError("unknown source", where="distill.options.on", found=on, expected="features or logits")
        if on == "logits" and (taps is not None or official_reshape):
            raise RecipeError("logits take neither taps nor official_reshape", where="distill.options.on", found=on)
        self.temperature, self.align, self.official_reshape = temperature, align, official_reshape
        self.features = (
            FeaturePairs(student_taps, teacher_taps, taps, adapt=True, align=align, seed=seed)
            if on == "features"
            else None
        )

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps, or `cwd` for logits. Ignored labels are left out of logits, not of features."""
        if self.features is None:
            with torch.autocast(student.logits.device.type, enabled=False):
                mine, theirs = paired_logits(student, teacher, self.align)
                valid = valid_pixels(target, (mine.shape[-2], mine.shape[-1]))
                return {"cwd": channel_kl(mine, theirs, self.temperature, valid)}
        losses = {}
        for tap, (mine, theirs) in self.features(student, teacher).items():
            if self.official_reshape:
                loss = channel_kl_reshaped(tokens(mine), tokens(theirs), self.temperature)
            else:
                loss = channel_kl(mine, theirs, self.temperature)
            losses[f"cwd/{tap}"] = loss
        return losses

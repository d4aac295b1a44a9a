"""Segmentation losses, in float32: cross-entropy, Dice, their sum, and LanGuide's foreground Dice.

`dice_ce` equals MONAI's DiceCELoss(to_onehot_y=True, softmax=True), or with sigmoid=True for a single logit, written in
torch alone. Pixels labelled 255 take no part: they are in no class's indicator map, and their probabilities count as 0.
"""

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.errors import RecipeError

IGNORED = 255
SMOOTH = 1e-5
"""Added to numerator and denominator of Dice (MONAI's default); an absent class that is not predicted costs nothing."""

Loss = Callable[[Tensor, Tensor], Tensor]


def soft_dice(probability: Tensor, reference: Tensor) -> Tensor:
    """1 - Dice of probabilities and indicator maps, both [B, C, H, W]; mean over samples and channels."""
    reference = reference.to(probability.dtype)
    overlap = (probability * reference).sum(dim=(2, 3))
    total = probability.sum(dim=(2, 3)) + reference.sum(dim=(2, 3))
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice over all classes, background included, plus mean cross-entropy; TextFreeKD's segmentation loss.

    logits: [B, C, H, W]; C = 1 is one foreground logit (sigmoid, foreground Dice, binary cross-entropy).
    target: [B, H, W] class indices, 255 ignored.
    """
    return dice(logits, target) + ce(logits, target)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice over all classes, background included; for a single logit over the foreground. Shapes as `dice_ce`."""
    probability = _probability(logits, target)
    return soft_dice(probability, _indicators(target, probability.shape[1]))


def ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, mean over the pixels that are not ignored; zero where there is none. Shapes as `dice_ce`."""
    logits = logits.float()
    valid = target != IGNORED
    if logits.shape[1] == 1:
        reference = (target == 1).to(logits.dtype)
        total = F.binary_cross_entropy_with_logits(logits[:, 0], reference, valid.to(logits.dtype), reduction="sum")
    else:
        total = F.cross_entropy(logits, target.long(), ignore_index=IGNORED, reduction="sum")
    return total / valid.sum().clamp(min=1)


def languide_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice of the foreground classes alone: LanGuide's loss as it works under MONAI 1.0.1, where its
    cross-entropy of one channel is zero. Shapes as `dice_ce`.
    """
    probability = _probability(logits, target)
    reference = _indicators(target, probability.shape[1])
    if probability.shape[1] > 1:
        probability, reference = probability[:, 1:], reference[:, 1:]
    return soft_dice(probability, reference)


LOSSES: dict[str, Loss] = {"dice_ce": dice_ce, "dice": dice, "ce": ce, "languide_dice": languide_dice}


def segmentation_loss(name: str) -> Loss:
    """The loss of that name, from logits [B, C, H, W] and target [B, H, W] to a float32 scalar.

    Raises RecipeError for an unknown name.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1, cutoff=0.4)
        raise RecipeError(
            "there is no such loss",
            where="training.loss",
            found=name,
            expected=f"one of {', '.join(LOSSES)}",
            remedy=f"did you mean {near[0]}?" if near else "",
        )
    return LOSSES[name]


def _probability(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.float()
    probability = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
    return torch.where((target != IGNORED).unsqueeze(1), probability, 0.0)


def _indicators(target: Tensor, channels: int) -> Tensor:
    first = 1 if channels == 1 else 0
    classes = torch.arange(first, first + channels, device=target.device)
    return target.unsqueeze(1) == classes.view(1, -1, 1, 1)

"""Segmentation losses, in float32: cross-entropy, Dice, and their sums as the published networks weigh them.

`dice_ce` equals MONAI's DiceCELoss(to_onehot_y=True, softmax=True), or with sigmoid=True for a single logit, written in
torch alone. The sums differ in what Dice counts together (a sample's class, a class of the whole batch, or all of a
sample) and in its denominator. Pixels labelled 255 take no part, though most originals stop at them: they are in no
class's indicator map, and their probabilities count as 0. Source of the zoo's: specification of segmentors, sections 1,
3, 6 and 7.
"""

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.data.masks import IGNORED
from preceptor.errors import RecipeError

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
    return soft_dice(*_maps(logits, target))


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
    return soft_dice(*_foreground(*_maps(logits, target)))


def foreground_dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus Dice of the foreground, each class summed over the batch: mmseg-kd's loss. Shapes as
    `dice_ce`.

    The original counts -Dice in place of 1 - Dice, which is smaller by 1 and has the same gradient. Its clip of the
    denominator at 1e-8 never acts, since SMOOTH is in it.
    """
    probability, reference = _foreground(*_maps(logits, target))
    overlap = (probability * reference).sum(dim=(0, 2, 3))
    total = probability.sum(dim=(0, 2, 3)) + reference.sum(dim=(0, 2, 3))
    return ce(logits, target) + (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def flat_dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus Dice of all classes and pixels of a sample together: mmseg-kd's for UNet-R50. Shapes as
    `dice_ce`.
    """
    probability, reference = (maps.flatten(1) for maps in _maps(logits, target))
    overlap, total = (probability * reference).sum(1), probability.sum(1) + reference.sum(1)
    return ce(logits, target) + (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def squared_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice with squares in the denominator, each class summed over the batch, mean over all classes, background
    included. Shapes as `dice_ce`.
    """
    probability, reference = _maps(logits, target)
    overlap = (probability * reference).sum(dim=(0, 2, 3))
    total = (probability.square() + reference).sum(dim=(0, 2, 3))  # an indicator is its own square
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def transunet(logits: Tensor, target: Tensor) -> Tensor:
    """0.5 cross-entropy + 0.5 squared Dice over all classes of a batch: TransUNet's loss. Shapes as `dice_ce`."""
    return 0.5 * ce(logits, target) + 0.5 * squared_dice(logits, target)


def missformer(logits: Tensor, target: Tensor) -> Tensor:
    """0.4 cross-entropy + 0.6 squared Dice over all classes of a batch: MISSFormer's loss. Shapes as `dice_ce`."""
    return 0.4 * ce(logits, target) + 0.6 * squared_dice(logits, target)


LOSSES: dict[str, Loss] = {
    "dice_ce": dice_ce,
    "dice": dice,
    "ce": ce,
    "languide_dice": languide_dice,
    "foreground_dice_ce": foreground_dice_ce,
    "flat_dice_ce": flat_dice_ce,
    "transunet": transunet,
    "missformer": missformer,
}


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


def _maps(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and indicators of the classes, both float32 [B, C, H, W]; 0 where a pixel takes no part."""
    logits = logits.float()
    probability = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
    probability = torch.where((target != IGNORED).unsqueeze(1), probability, 0.0)
    first = 1 if logits.shape[1] == 1 else 0
    classes = torch.arange(first, first + logits.shape[1], device=target.device)
    return probability, (target.unsqueeze(1) == classes.view(1, -1, 1, 1)).to(probability.dtype)


def _foreground(probability: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The maps without the background's, where it has one."""
    return (probability[:, 1:], reference[:, 1:]) if probability.shape[1] > 1 else (probability, reference)

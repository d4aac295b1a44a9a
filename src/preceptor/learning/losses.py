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


def image_dice(probability: Tensor, reference: Tensor) -> Tensor:
    """1 - Dice with squares in the denominator, of all of an image together; mean over images. Both [B, C, H, W].

    The smoothing is 4e-5: C2FVL halves both maps before it adds SMOOTH to numerator and denominator.
    """
    reference = reference.to(probability.dtype)
    overlap = (probability * reference).flatten(1).sum(1)
    total = (probability.square() + reference.square()).flatten(1).sum(1)
    return (1 - (0.5 * overlap + SMOOTH) / (0.25 * total + SMOOTH)).mean()


def balanced_bce(logits: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
    """Half the mean binary cross-entropy of the positive pixels plus half that of the negative ones, over the batch.

    logits, reference (0 and 1) and, where some take no part, valid: [B, C, H, W]. A half without pixels is 0.
    """
    logits, reference = logits.float(), reference.float()
    cost = F.binary_cross_entropy_with_logits(logits, reference, reduction="none")
    shares = torch.ones_like(reference) if valid is None else valid.to(reference.dtype).expand_as(reference)
    positive, negative = shares * reference, shares * (1 - reference)
    return 0.5 * sum(((cost * half).sum() / (half.sum() + 1e-12) for half in (positive, negative)), cost.new_zeros(()))


def c2fvl(logits: Tensor, target: Tensor) -> Tensor:
    """0.5 Dice of each image + 0.5 balanced cross-entropy, both of the foreground: C2FVL's loss. Shapes as `dice_ce`.

    Of several foreground classes, each is held against all others; the original has one. Its third part, the alignment,
    is the network's own (`Segmentor.own_losses`). Source: specification of C2FVL, section 5.
    """
    probability, reference = _foreground(*_maps(logits, target))
    valid = (target != IGNORED).unsqueeze(1)
    return 0.5 * image_dice(probability, reference) + 0.5 * balanced_bce(_against_rest(logits), reference, valid)


def textdiff(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy + 1.5 squared Dice of the raw logits over all classes of a batch: TextDiff's loss as it is
    trained, without a softmax, which draws each logit to 0 or 1. Shapes as `dice_ce`.
    """
    _, reference = _maps(logits, target)
    raw = torch.where((target != IGNORED).unsqueeze(1), logits.float(), 0.0)
    overlap, total = (raw * reference).sum(dim=(0, 2, 3)), (raw.square() + reference).sum(dim=(0, 2, 3))
    return ce(logits, target) + 1.5 * (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def textdiff_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """TextDiff's loss with the Dice of probabilities. Shapes as `dice_ce`."""
    return ce(logits, target) + 1.5 * squared_dice(logits, target)


LOSSES: dict[str, Loss] = {
    "dice_ce": dice_ce,
    "dice": dice,
    "ce": ce,
    "languide_dice": languide_dice,
    "foreground_dice_ce": foreground_dice_ce,
    "flat_dice_ce": flat_dice_ce,
    "transunet": transunet,
    "missformer": missformer,
    "c2fvl": c2fvl,
    "textdiff": textdiff,
    "textdiff_softmax": textdiff_softmax,
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


def _against_rest(logits: Tensor) -> Tensor:
    """The logit of each foreground class against all others together, float32; of one channel itself."""
    logits = logits.float()
    if logits.shape[1] == 1:
        return logits
    channels = logits.unbind(1)
    others = [torch.logsumexp(torch.stack(channels[:c] + channels[c + 1 :]), 0) for c in range(1, len(channels))]
    return logits[:, 1:] - torch.stack(others, dim=1)

"""How good a segmentation is: per case and class, pooled over pixels, and as a mean over images.

The policy for absent structures holds for every metric here (POLICY says it in words): a structure that was missed,
or seen where there is none, scores worst and never best; a correct rejection scores best and is counted apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from preceptor.evaluation.surface import average_distance, hausdorff_95, surface_dice, surface_distances

Kind = Literal["both", "missed", "false_alarm", "empty"]
Convention = Literal["test", "validation", "smooth", "textdiff"]

KINDS: tuple[Kind, ...] = ("both", "missed", "false_alarm", "empty")
OVERLAPS = ("dice", "iou", "precision", "recall", "surface_dice")
DISTANCES = ("hd95", "assd")
CASE_METRICS = (*OVERLAPS[:4], *DISTANCES, "surface_dice")
METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "hd95": "HD95",
    "assd": "ASSD",
    "surface_dice": "Surface Dice",
    "dice_pooled": "Dice, pooled pixels",
    "iou_pooled": "IoU, pooled pixels",
    "dice_image_mean": "Dice, image mean",
    "iou_image_mean": "IoU, image mean",
    "dice_transunet": "Dice, TransUNet's rule",
    "hd95_transunet": "HD95, TransUNet's rule",
    "dice_nan_ignore": "Dice, absent dropped",
    "hd95_nan_ignore": "HD95, absent dropped",
}
"""For readers, in the order of tables."""


@dataclass(frozen=True)
class Family:
    """Metrics that follow one convention, with the convention in words. p-values are corrected within a family.

    `{scored}` in the words stands for what one score is of: case, slice or volume.
    """

    title: str
    metrics: tuple[str, ...]
    rule: str = ""


FAMILIES = (
    Family("Each {scored} by itself, at its own resolution", CASE_METRICS),
    Family(
        "Pooled, as published for TextFreeKD and LanGuideMedSeg",
        ("dice_pooled", "iou_pooled"),
        "the pixels of all {scored}s together",
    ),
    Family(
        "Image mean, as published for LViT and C2FVL",
        ("dice_image_mean", "iou_image_mean"),
        "empty against empty counts 0",
    ),
    Family(
        "As published for TransUNet, MISSFormer and others on Synapse",
        ("dice_transunet", "hd95_transunet"),
        "an invented structure counts Dice 1 and HD95 0; a missed one, and empty against empty, Dice 0 and HD95 0, "
        "the best distance there is",
    ),
    Family(
        "As MONAI averages: absent structures dropped",
        ("dice_nan_ignore", "hd95_nan_ignore"),
        "a structure that the reference lacks is left out; HD95 leaves out the missed ones as well",
    ),
)
POLICY = (
    "Reference and prediction both present: computed. Reference present, prediction empty (missed) and reference "
    "empty, prediction not (false alarm): Dice, IoU, precision, recall and surface Dice are 0, and HD95 and ASSD are "
    "the diagonal of the image or volume. Both empty (correct rejection): overlaps are 1 and distances 0; the number "
    "of such cases is shown beside the mean."
)


def case_metrics(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float] | None = None,
    tolerance: float = 2.0,
) -> dict[str, Any]:
    """Every metric of one structure in one case, at the resolution of the arrays.

    prediction, reference: [H, W] or [D, H, W], non-zero is foreground. spacing: mm an axis, or None for pixels.
    tolerance: of the surface Dice, in the unit of the spacing.
    Returns dice, iou, precision, recall, surface_dice in 0..1, hd95, assd in the unit of the spacing, the pixel counts
    tp, fp, fn, tn, and kind (one of KINDS; see POLICY). Raises ValueError where shapes or spacing do not fit.
    """
    prediction, reference = np.asarray(prediction) != 0, np.asarray(reference) != 0
    _require_fit(prediction, reference, spacing)
    tp = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    counts = {"tp": tp, "fp": fp, "fn": fn, "tn": prediction.size - tp - fp - fn}
    kind = kind_of(tp, fp, fn)
    if kind != "both":
        right = kind == "empty"
        overlaps = dict.fromkeys(OVERLAPS, 1.0 if right else 0.0)
        distances = dict.fromkeys(DISTANCES, 0.0 if right else diagonal(prediction.shape, spacing))
        return {**overlaps, **distances, **counts, "kind": kind}
    there, back = surface_distances(prediction, reference, spacing)
    return {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "surface_dice": surface_dice(there, back, tolerance),
        "hd95": hausdorff_95(there, back),
        "assd": average_distance(there, back),
        **counts,
        "kind": kind,
    }


def kind_of(tp: int, fp: int, fn: int) -> Kind:
    """Which of the four combinations of empty and present masks the counts belong to."""
    if tp + fn:
        return "both" if tp + fp else "missed"
    return "false_alarm" if tp + fp else "empty"


def diagonal(shape: Sequence[int], spacing: Sequence[float] | None = None) -> float:
    """Length of the image's diagonal: the distance given to a missed structure; no surface distance exceeds it."""
    steps = spacing if spacing is not None else (1.0,) * len(shape)
    return float(np.sqrt(sum((size * step) ** 2 for size, step in zip(shape, steps, strict=True))))


def pooled(counts: Any, *, empty: Literal["policy", "published"] = "policy") -> dict[str, float]:
    """Dice and IoU of the counts of all images together: the family of TextFreeKD and LanGuideMedSeg.

    counts: rows with tp, fp, fn, or an array [..., 3] of one class. Dice = 2TP / (2TP + FP + FN), IoU = TP / (TP + FP
    + FN), so Dice = 2 IoU / (1 + IoU). No foreground anywhere: 1 by our policy; published: Dice 0 and IoU NaN.
    The original counts a probability of exactly 0.5 as foreground for Dice and as background for IoU.
    """
    tp, fp, fn = _columns(counts).sum(axis=0)
    if tp + fp + fn == 0:
        dice, iou = (1.0, 1.0) if empty == "policy" else (0.0, float("nan"))
    else:
        dice, iou = 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)
    return {"dice_pooled": float(dice), "iou_pooled": float(iou)}


def image_mean(counts: Any, convention: Convention = "test") -> dict[str, float]:
    """Mean over images of each image's Dice and IoU: the family of LViT and C2FVL, with their treatment of empty masks.

    counts: rows with tp, fp, fn, or an array [..., 3] of one class.
    convention "test" (C2FVL's test code): Dice 2TP / (P + Y + 1e-5), so empty against empty is 0;
    "validation": (2TP + 4e-5) / (P + Y + 4e-5), and "smooth": (2TP + 1e-5) / (P + Y + 1e-5), where it is 1.
    IoU is that of scikit-learn in all three: empty against empty is 0.
    "textdiff" (TextDiff's validation): IoU (TP + 1e-5) / (TP + FP + FN + 1e-5), Dice 2 IoU / (IoU + 1); both are 1 for
    empty against empty.
    """
    dice, iou = image_scores(counts, convention)
    return {"dice_image_mean": float(dice.mean()), "iou_image_mean": float(iou.mean())}


def image_scores(counts: Any, convention: Convention = "test") -> tuple[np.ndarray, np.ndarray]:
    """The per-image (Dice, IoU) whose means `image_mean` gives: two float64 arrays [N]."""
    tp, fp, fn = _columns(counts).T
    if convention == "textdiff":
        iou = (tp + 1e-5) / (tp + fp + fn + 1e-5)
        return 2 * iou / (iou + 1), iou
    above, below = {"test": (0.0, 1e-5), "validation": (4e-5, 4e-5), "smooth": (1e-5, 1e-5)}[convention]
    dice = (2 * tp + above) / (2 * tp + fp + fn + below)
    iou = tp / np.maximum(tp + fp + fn, 1)
    return dice, iou


def transunet_scores(counts: np.ndarray, dice: np.ndarray, hd95: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Dice, HD95) by the rule of TransUNet's evaluation, which MISSFormer and other tables on Synapse share.

    counts: [..., 3] of tp, fp, fn; dice, hd95: [...] by our policy. Present in both: unchanged (the original takes the
    percentile of both directions pooled, and voxels). Only predicted: 1 and 0. Else, where either is empty: 0 and 0.
    """
    predicted, present = _found(counts)
    both = predicted & present
    return np.where(both, dice, np.where(predicted, 1.0, 0.0)), np.where(both, hd95, 0.0)


def nan_ignored(counts: np.ndarray, dice: np.ndarray, hd95: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Dice, HD95) with NaN for what MONAI's metrics drop from their means; arguments as `transunet_scores`.

    Dice drops structures that the reference lacks, HD95 those that either lacks.
    """
    predicted, present = _found(counts)
    return np.where(present, dice, np.nan), np.where(predicted & present, hd95, np.nan)


def _found(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the prediction has any foreground, and whether the reference has."""
    tp, fp, fn = np.moveaxis(np.asarray(counts), -1, 0)
    return tp + fp > 0, tp + fn > 0


def _columns(counts: Any) -> np.ndarray:
    """[N, 3] float64 of tp, fp, fn from rows, a data frame or an array."""
    if hasattr(counts, "columns"):
        counts = counts[["tp", "fp", "fn"]].to_numpy()
    elif not isinstance(counts, np.ndarray):
        counts = _rows(counts)
    result = np.asarray(counts, dtype=np.float64).reshape(-1, 3)
    if len(result) == 0:
        raise ValueError("there is no case to summarise")
    return result


def _rows(rows: Iterable[Any]) -> list[Any]:
    return [[row["tp"], row["fp"], row["fn"]] if isinstance(row, Mapping) else row for row in rows]


def _require_fit(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    if prediction.ndim not in (2, 3):
        raise ValueError(f"masks are [H, W] or [D, H, W], not {prediction.shape}")
    if spacing is not None and (len(spacing) != prediction.ndim or min(spacing) <= 0):
        raise ValueError(f"spacing {tuple(spacing)} does not fit masks of {prediction.ndim} axes")

"""Per-case metrics against brute force and MONAI, both published families against the golden cases, and the policy."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.evaluation.metrics import (
    CASE_METRICS,
    case_metrics,
    diagonal,
    image_mean,
    image_scores,
    nan_ignored,
    pooled,
    transunet_scores,
)

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [case for case in json.loads((GOLDEN / "textguided_losses.json").read_text())["cases"] if case.get("metric")]


def fill_module() -> Any:
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden_arrays(case: dict) -> tuple[np.ndarray, np.ndarray]:
    fill = fill_module()
    probabilities, masks = [], []
    for batch in case["batches"]:
        entry = batch["probability"]
        shape = tuple(entry["shape"])
        if entry["make"] == "constant":
            probabilities.append(np.full(shape, entry["value"], np.float32))
        else:
            probabilities.append(fill.array(entry["array"], shape, entry["low"], entry["high"]))
        entry = batch["mask"]
        mask = fill.array(entry["array"], shape) > entry["above"]
        mask[entry["empty"]] = False
        mask[entry["full"]] = True
        masks.append(mask)
    return np.concatenate(probabilities)[:, 0], np.concatenate(masks)[:, 0]


def counts_of(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """[N, 3] of tp, fp, fn."""
    pairs = [(prediction & reference), (prediction & ~reference), (~prediction & reference)]
    return np.stack([pair.sum(axis=(1, 2)) for pair in pairs], axis=1)


def blob(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_both_published_families_match_the_golden_case(case: dict) -> None:
    probability, mask = golden_arrays(case)
    at_least, above = counts_of(probability >= 0.5, mask), counts_of(probability > 0.5, mask)
    expected = case["expected"]
    near = {"rel": 2e-5, "abs": 2e-6}
    official = pooled(at_least, empty="published")["dice_pooled"], pooled(above, empty="published")["iou_pooled"]
    assert official[0] == pytest.approx(expected["dice_pooled"], **near)
    assert official[1] == pytest.approx(
        float("nan") if expected["iou_pooled"] is None else expected["iou_pooled"], nan_ok=True, **near
    )
    for counts, convention, name in [(at_least, "validation", "val"), (above, "test", "test")]:
        means = image_mean(counts, convention)
        assert means["dice_image_mean"] == pytest.approx(expected[f"dice_image_mean_{name}"], **near)
        assert means["iou_image_mean"] == pytest.approx(expected[f"iou_image_mean_{name}"], **near)
        dice, iou = image_scores(counts, convention)
        assert dice == pytest.approx(case["per_image"][f"dice_image_mean_{name}"], **near)
        assert iou == pytest.approx(case["per_image"][f"iou_image_mean_{name}"], **near)
    smooth = image_mean(at_least, "smooth")["dice_image_mean"]
    assert smooth == pytest.approx(expected["dice_image_mean_smooth"], **near)
    totals = case["counts_at_ge_half"]
    assert at_least.sum(axis=0).tolist() == [totals["tp"], totals["fp"], totals["fn"]]


def test_pooled_obeys_its_identity_and_image_mean_does_not() -> None:
    probability, mask = golden_arrays(CASES[0])
    counts = counts_of(probability >= 0.5, mask)
    whole, means = pooled(counts), image_mean(counts)
    assert whole["dice_pooled"] == pytest.approx(2 * whole["iou_pooled"] / (1 + whole["iou_pooled"]))
    assert abs(means["dice_image_mean"] - 2 * means["iou_image_mean"] / (1 + means["iou_image_mean"])) > 0.005


def test_all_empty_pooled_is_one_by_policy_and_zero_as_published() -> None:
    nothing = np.zeros((4, 3))
    assert pooled(nothing) == {"dice_pooled": 1.0, "iou_pooled": 1.0}
    official = pooled(nothing, empty="published")
    assert official["dice_pooled"] == 0
    assert np.isnan(official["iou_pooled"])


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.7, 1.9)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_match_brute_force_in_two_dimensions(seed: int, spacing: tuple[float, float] | None) -> None:
    noise = np.random.default_rng(seed)
    shape = (33, 41)
    prediction = blob(shape, tuple(noise.uniform(8, 24, 2)), 9) ^ (noise.random(shape) < 0.01)
    reference = blob(shape, tuple(noise.uniform(8, 24, 2)), 7)
    compare_with_brute_force(prediction, reference, spacing)


def test_distances_match_brute_force_in_three_dimensions() -> None:
    shape = (9, 14, 12)
    compare_with_brute_force(blob(shape, (4, 6, 5), 4), blob(shape, (5, 8, 6), 3.5), (2.5, 0.8, 1.1))


def compare_with_brute_force(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...] | None) -> None:
    """SciPy's erosion for surfaces and all pairwise distances: no code in common."""
    from scipy.ndimage import binary_erosion
    from scipy.spatial.distance import cdist

    steps = np.asarray(spacing if spacing is not None else (1,) * prediction.ndim)
    ours = np.argwhere(prediction & ~binary_erosion(prediction)) * steps
    theirs = np.argwhere(reference & ~binary_erosion(reference)) * steps
    table = cdist(ours, theirs)
    there, back = table.min(axis=1), table.min(axis=0)
    found = case_metrics(prediction, reference, spacing, tolerance=1.5)
    assert found["hd95"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found["assd"] == pytest.approx(np.concatenate([there, back]).mean())
    assert found["surface_dice"] == pytest.approx((np.concatenate([there, back]) <= 1.5).mean())
    assert found["dice"] == pytest.approx(2 * (prediction & reference).sum() / (prediction.sum() + reference.sum()))
    assert found["iou"] == pytest.approx((prediction & reference).sum() / (prediction | reference).sum())
    assert found["precision"] == pytest.approx((prediction & reference).sum() / prediction.sum())
    assert found["recall"] == pytest.approx((prediction & reference).sum() / reference.sum())


def test_monai_agrees_where_its_definitions_are_ours() -> None:
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_iou,
        compute_surface_dice,
    )

    shape, spacing = (48, 40), (1.4, 0.6)
    prediction, reference = blob(shape, (20, 17), 11.2), blob(shape, (24, 20), 9.3)
    found = case_metrics(prediction, reference, spacing, tolerance=2.0)
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    given: dict[str, Any] = {"include_background": True, "spacing": spacing}
    assert found["hd95"] == pytest.approx(compute_hausdorff_distance(*masks, percentile=95, **given).item(), rel=1e-5)
    assert found["assd"] == pytest.approx(
        compute_average_surface_distance(*masks, symmetric=True, **given).item(), rel=1e-5
    )
    assert found["surface_dice"] == pytest.approx(
        compute_surface_dice(*masks, class_thresholds=[2.0], **given).item(), rel=1e-5
    )
    assert found["iou"] == pytest.approx(compute_iou(*masks).item(), rel=1e-5)


def test_a_mask_at_the_border_has_its_surface_there() -> None:
    whole = np.ones((5, 6), bool)
    assert case_metrics(whole, whole)["hd95"] == 0
    smaller = whole.copy()
    smaller[:, -1] = False
    assert case_metrics(smaller, whole)["hd95"] == 1


@pytest.mark.parametrize("spacing", [None, (0.5, 2.0)])
def test_a_missed_structure_scores_worst_and_never_best(spacing: tuple[float, float] | None) -> None:
    structure, nothing = blob((30, 40), (10, 10), 4), np.zeros((30, 40), bool)
    poor = case_metrics(blob((30, 40), (28, 38), 1), structure, spacing)
    for prediction, reference, kind in [(nothing, structure, "missed"), (structure, nothing, "false_alarm")]:
        found = case_metrics(prediction, reference, spacing)
        assert found["kind"] == kind
        assert [found[name] for name in ("dice", "iou", "precision", "recall", "surface_dice")] == [0] * 5
        assert found["hd95"] == found["assd"] == diagonal((30, 40), spacing)
        assert found["hd95"] > poor["hd95"]


def test_a_correct_rejection_scores_best_and_is_counted_apart() -> None:
    nothing = np.zeros((7, 8), bool)
    found = case_metrics(nothing, nothing)
    assert found["kind"] == "empty"
    assert [found[name] for name in CASE_METRICS] == [1, 1, 1, 1, 0, 0, 1]
    assert found["tn"] == 56


def test_diagonal_is_in_the_unit_of_the_spacing() -> None:
    assert diagonal((3, 4)) == 5
    assert diagonal((30, 40), (0.1, 0.1)) == pytest.approx(5)


def test_shapes_and_spacing_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        case_metrics(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="spacing"):
        case_metrics(np.ones((3, 4)), np.ones((3, 4)), spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="no case"):
        pooled([])


KINDS = {"both": (5, 1, 2), "missed": (0, 0, 3), "false_alarm": (0, 4, 0), "empty": (0, 0, 0)}
"""tp, fp, fn of each combination of empty and present masks."""


def test_published_rules_differ_where_a_mask_is_empty() -> None:
    counts = np.array(list(KINDS.values()))
    dice, hd95 = np.array([10 / 13, 0.0, 0.0, 1.0]), np.array([2.5, 50.0, 50.0, 0.0])
    told = transunet_scores(counts, dice, hd95)
    assert told[0].tolist() == [10 / 13, 0, 1, 0]
    assert told[1].tolist() == [2.5, 0, 0, 0]
    told = nan_ignored(counts, dice, hd95)
    np.testing.assert_array_equal(told[0], [10 / 13, 0, np.nan, np.nan])
    np.testing.assert_array_equal(told[1], [2.5, np.nan, np.nan, np.nan])


def test_an_organ_that_was_missed_has_the_best_distance_as_published_and_the_worst_here() -> None:
    """With TransUNet's rule a network gains by leaving a hard organ out altogether; with ours it loses."""
    organ, nothing = blob((4, 20, 24), (2, 8, 8), 3), np.zeros((4, 20, 24), bool)
    poor = blob((4, 20, 24), (2, 15, 19), 2)

    def judged(prediction: np.ndarray) -> tuple[float, float]:
        found = case_metrics(prediction, organ)
        counts = np.array([found[name] for name in ("tp", "fp", "fn")])
        published = transunet_scores(counts, np.array(found["dice"]), np.array(found["hd95"]))
        return float(published[1]), found["hd95"]

    missed, seen = judged(nothing), judged(poor)
    assert missed[0] == 0 < seen[0]
    assert missed[1] == diagonal((4, 20, 24)) > seen[1]


TEXTDIFF = Path(__file__).parent.parent / "golden" / "sikd_textdiff_losses"


@pytest.mark.parametrize("name", ["iou_overlap", "iou_empty_prediction", "iou_empty_target", "iou_both_empty"])
def test_textdiff_s_dice_is_made_of_its_smoothed_iou(name: str) -> None:
    cases = json.loads(TEXTDIFF.with_suffix(".json").read_text(encoding="utf-8"))["cases"]
    (case,) = (case for case in cases if case["name"] == name)
    with np.load(TEXTDIFF.with_suffix(".npz")) as arrays:
        found, wanted = (arrays[case["inputs"][part]["npz"]][0] for part in ("prediction", "target"))
    metrics = case_metrics(found, wanted)
    counts = np.array([[metrics[key] for key in ("tp", "fp", "fn")]])
    (dice,), (iou,) = image_scores(counts, "textdiff")
    official = case["expected"]["official"]
    assert (iou, dice) == pytest.approx((official["iou"], official["dice"]), rel=1e-5, abs=1e-9)

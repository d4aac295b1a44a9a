"""Surfaces and distances of volumes are those of SIKD's evaluation; the percentile is taken by another definition."""

import json
from pathlib import Path

import numpy as np
import pytest

from preceptor.evaluation.metrics import case_metrics, diagonal, transunet_scores
from preceptor.evaluation.surface import surface_distances

GOLDEN = Path(__file__).parents[1] / "golden" / "sikd_textdiff_losses"
CASES = {
    case["name"]: case
    for case in json.loads(GOLDEN.with_suffix(".json").read_text())["cases"]
    if case["group"] == "volume_metric"
}
TABLE = CASES.pop("volume_table")


def volumes(case: dict) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Prediction, target and spacing; foreground is 1, or the class numbers of the table."""
    with np.load(GOLDEN.with_suffix(".npz")) as arrays:
        prediction, target = (arrays[case["inputs"][name]["npz"]] for name in ("prediction", "target"))
    return prediction, target, case["inputs"]["spacing_mm"]


def pooled_hd95(prediction: np.ndarray, target: np.ndarray, spacing: list[float] | None = None) -> float:
    """The definition of the golden cases: one percentile of the distances in both directions."""
    return float(np.percentile(np.concatenate(surface_distances(prediction != 0, target != 0, spacing)), 95))


@pytest.mark.parametrize("name", CASES)
def test_a_volume_scores_as_in_the_original_s_evaluation(name: str) -> None:
    prediction, target, spacing = volumes(CASES[name])
    expected, tolerance = CASES[name]["expected"], CASES[name]["tolerance"]
    close = {"rel": tolerance["rtol"], "abs": tolerance["atol"]}
    voxels, found = case_metrics(prediction, target), case_metrics(prediction, target, spacing)
    assert found["dice"] == voxels["dice"] == pytest.approx(expected["correct"]["dice"], **close)
    both = found["kind"] == "both"
    if both:
        assert pooled_hd95(prediction, target) == pytest.approx(expected["correct"]["hd95_voxel"], **close)
        assert pooled_hd95(prediction, target, spacing) == pytest.approx(expected["correct"]["hd95_mm"], **close)
        assert voxels["hd95"] == pytest.approx(expected["hd95_max_of_directed_voxel"], **close)
    else:  # undefined there; the policy gives the worst to what is wrong and 0 to a correct rejection
        assert expected["correct"]["hd95_mm"] is None
        assert found["hd95"] == (0.0 if found["kind"] == "empty" else diagonal(target.shape, spacing))
    counts = np.array([voxels[key] for key in ("tp", "fp", "fn")])
    pooled = pooled_hd95(prediction, target) if both else voxels["hd95"]
    dice, hd95 = transunet_scores(counts, np.array(voxels["dice"]), np.array(pooled))
    assert (dice, hd95) == pytest.approx((expected["official"]["dice"], expected["official"]["hd95"]), **close)


def test_a_table_of_volumes_and_classes_has_the_original_s_means() -> None:
    predictions, targets, _ = volumes(TABLE)
    expected = TABLE["expected"]
    rows = [[case_metrics(p == n, t == n) for n in (1, 2, 3)] for p, t in zip(predictions, targets, strict=True)]
    counts = np.array([[[row[key] for key in ("tp", "fp", "fn")] for row in line] for line in rows])
    dice = np.array([[row["dice"] for row in line] for line in rows])
    pooled = np.array(
        [
            [pooled_hd95(p == n, t == n) if row["kind"] == "both" else 0.0 for n, row in enumerate(line, start=1)]
            for p, t, line in zip(predictions, targets, rows, strict=True)
        ]
    )
    official, distances = transunet_scores(counts, dice, pooled)
    np.testing.assert_allclose(official, expected["official"]["table_dice"], rtol=1e-6)
    np.testing.assert_allclose(distances, expected["official"]["table_hd95"], rtol=1e-6)
    np.testing.assert_allclose(official.mean(0).mean(), expected["official"]["dice"], rtol=1e-6)
    np.testing.assert_allclose(distances.mean(0).mean(), expected["official"]["hd95"], rtol=1e-6)
    np.testing.assert_allclose(dice, expected["correct"]["table_dice"], rtol=1e-6)
    np.testing.assert_allclose(dice.mean(), expected["correct"]["dice"], rtol=1e-6)

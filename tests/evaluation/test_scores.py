"""The table of an arm: complete, aligned with the other arms, and summed as it says."""

import warnings

import numpy as np
import pytest

from preceptor.errors import DataError
from preceptor.evaluation.metrics import FAMILIES, case_metrics, pooled
from preceptor.evaluation.scores import LOWER_IS_BETTER, METRICS, common_cases, read_rows, scores_of
from preceptor.evaluation.statistics import bootstrap

from .fabricate import fabricate_rows, write_csv


def test_metrics_are_those_of_plain_means_and_pooled_counts() -> None:
    rows = fabricate_rows(9, seeds=(3, 5), classes=("lung", "heart"))
    found = scores_of(rows).metrics()
    assert found["dice"] == pytest.approx(rows["dice"].mean())
    assert found["hd95"] == pytest.approx(rows["hd95"].mean())
    expected = np.mean([pooled(part)["dice_pooled"] for _, part in rows.groupby(["seed", "class"])])
    assert found["dice_pooled"] == pytest.approx(expected)


def test_seeds_and_classes_can_be_taken_apart() -> None:
    rows = fabricate_rows(5, seeds=(3, 5), classes=("lung", "heart"))
    scores = scores_of(rows)
    part = rows[(rows["seed"] == 5) & (rows["class"] == "heart")]
    assert scores.of_seed(1).of_class(1).metrics()["iou"] == pytest.approx(part["iou"].mean())
    assert scores.per_case("dice")[2] == pytest.approx(rows[rows["case"] == "c002"]["dice"].mean())


def test_repeating_seeds_changes_no_metric() -> None:
    scores = scores_of(fabricate_rows(5, seeds=(3, 5)))
    assert scores.repeated(6).metrics() == pytest.approx(scores.metrics())


@pytest.mark.parametrize("fault", ["gap", "twice"])
def test_a_gap_or_a_double_row_is_refused_with_its_case(fault: str) -> None:
    import pandas as pd

    rows = fabricate_rows(4, seeds=(0, 1))
    rows = rows.drop(index=5) if fault == "gap" else pd.concat([rows, rows.iloc[[5]]])
    with pytest.raises(DataError, match="c002 / infection / 1"):
        scores_of(rows, "control")


def test_a_score_that_is_not_finite_is_refused() -> None:
    rows = fabricate_rows(4)
    rows.loc[2, "hd95"] = float("nan")
    with pytest.raises(DataError, match=r"not a finite number[\s\S]*c002"):
        scores_of(rows)


def test_arms_with_different_cases_are_refused_unless_intersected() -> None:
    arms = {"control": scores_of(fabricate_rows(8)), "student": scores_of(fabricate_rows(6))}
    with pytest.raises(DataError, match=r"different cases[\s\S]*c006: judged in control"):
        common_cases(arms)
    aligned, left_out = common_cases(arms, intersect=True)
    assert (len(aligned["control"].cases), left_out) == (6, 2)
    assert aligned["control"].cases == aligned["student"].cases


def test_arms_are_put_in_one_order() -> None:
    rows = fabricate_rows(8)
    aligned, _ = common_cases({"control": scores_of(rows), "student": scores_of(rows.iloc[::-1])})
    assert (aligned["control"].values == aligned["student"].values).all()


def test_arms_with_different_classes_are_refused() -> None:
    with pytest.raises(DataError, match="different classes"):
        common_cases({"control": scores_of(fabricate_rows(3)), "student": scores_of(fabricate_rows(3, classes=["x"]))})


def test_arms_with_different_references_are_refused() -> None:
    """Equal names, other masks."""
    rows = fabricate_rows(4, seeds=(0, 1))
    rows.loc[5, "fn"] += 1
    for control, where in ((fabricate_rows(4), "control and student"), (rows, "control")):
        with pytest.raises(DataError, match=rf"^{where}: .*different references[\s\S]*c002 / infection"):
            common_cases({"control": scores_of(control), "student": scores_of(rows)})


def test_arms_with_different_groups_are_refused() -> None:
    arms = [scores_of(fabricate_rows(6, groups=groups)) for groups in (3, 2, None)]
    for other in arms[1:]:
        with pytest.raises(DataError, match=r"different groups[\s\S]*c\d+: its group differs"):
            common_cases({"control": arms[0], "student": other})
    named = fabricate_rows(6, groups=3)
    named["group"] = "ward " + named["group"]
    assert common_cases({"control": arms[0], "student": scores_of(named)})[1] == 0, "names of groups do not matter"


def test_kinds_are_of_the_cases_and_classes_that_are_left() -> None:
    rows = fabricate_rows(3, classes=("lung", "heart"))
    rows.loc[0, ["tp", "fp", "fn"]] = 0, 0, 9
    rows.loc[3, ["tp", "fp", "fn"]] = 0, 7, 0
    scores = scores_of(rows)
    assert scores.kinds == {"both": 4, "missed": 1, "false_alarm": 1, "empty": 0}
    assert scores.of_class(0).kinds == {"both": 2, "missed": 1, "false_alarm": 0, "empty": 0}
    assert scores.of_cases(["c001"]).kinds == {"both": 1, "missed": 0, "false_alarm": 1, "empty": 0}


def test_names_that_look_like_numbers_or_nothing_stay_text(tmp_path) -> None:
    write_csv(tmp_path / "cases.csv", ["case", "group", "dice"], [["007", "", 0.5], ["NA", "1e3", 0.7]])
    rows = read_rows(tmp_path / "cases.csv")
    assert rows["case"].tolist() == ["007", "NA"]
    assert rows["group"].tolist() == ["", "1e3"]
    assert rows["dice"].sum() == pytest.approx(1.2)


def test_groups_are_kept_only_where_cases_share_one() -> None:
    assert scores_of(fabricate_rows(6, groups=3)).groups is not None
    assert scores_of(fabricate_rows(6, groups=6)).groups is None
    assert len(scores_of(fabricate_rows(6, groups=3)).totals()) == 3


def organs(cases: int = 5, seeds: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true volumes of three organs, bool [cases, seeds, organs, 3, 12, 12], of which many are empty."""
    noise = np.random.default_rng(3)
    present, seen = noise.random((2, cases, 1, 3, 1, 1, 1)) < 0.65
    box = np.zeros((cases, 1, 3, 3, 12, 12), bool)
    box[..., 1:, 3:8, 2:9] = True
    truth = np.repeat(box & present, seeds, axis=1)
    moved = [np.roll(box, int(step), axis=-1) for step in noise.integers(1, 4, seeds)]
    found = np.concatenate(moved, axis=1) & (seen | (noise.random((cases, seeds, 3, 1, 1, 1)) < 0.2))
    return found, truth


def table_of(found: np.ndarray, truth: np.ndarray):
    import pandas as pd

    rows = [
        {"case": f"c{case}", "group": "", "seed": seed, "class": f"organ {k}"}
        | case_metrics(found[case, seed, k], truth[case, seed, k])
        for case in range(len(found))
        for seed in range(found.shape[1])
        for k in range(3)
    ]
    return pd.DataFrame(rows)


def test_absent_structures_are_dropped_as_monai_drops_them() -> None:
    import torch
    from monai.metrics import DiceMetric, HausdorffDistanceMetric

    found, truth = organs()
    scores = scores_of(table_of(found, truth))
    assert min(scores.kinds.values()) > 0
    given = [torch.from_numpy(part[:, 0]).float() for part in (found, truth)]
    dice = DiceMetric(include_background=True, reduction="mean")
    dice(*given)
    assert scores.metrics()["dice_nan_ignore"] == pytest.approx(dice.aggregate().item(), rel=1e-5)
    distance = HausdorffDistanceMetric(include_background=True, percentile=95, reduction="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty masks, and of MONAI's own deprecations
        table = distance(*given).numpy()
    known = np.where(np.isfinite(table), table, np.nan)
    known = known[np.isfinite(known).any(axis=1)]
    assert scores.metrics()["hd95_nan_ignore"] == pytest.approx(np.nanmean(known, axis=1).mean(), rel=1e-5)


def test_what_is_dropped_is_averaged_for_each_seed_and_resampled_as_a_ratio() -> None:
    scores = scores_of(table_of(*organs(seeds=2)))
    whole, single = scores.metrics(), [scores.of_seed(index).metrics() for index in range(2)]
    for name in ("dice_nan_ignore", "hd95_nan_ignore", "dice_transunet", "hd95_transunet"):
        assert whole[name] == pytest.approx(np.mean([part[name] for part in single]))
    index = METRICS.index("dice_nan_ignore")
    interval = bootstrap(scores.totals(), scores.metrics_of, 300)[index]
    assert 0 < interval.low < interval.mean < interval.high < 1


def test_a_class_that_no_reference_has_has_no_score_where_absent_ones_are_dropped() -> None:
    found, truth = organs()
    scores = scores_of(table_of(found, truth & False))
    assert np.isnan(scores.metrics()["dice_nan_ignore"])
    interval = bootstrap(scores.totals(), scores.metrics_of, 50)[METRICS.index("hd95_nan_ignore")]
    assert np.isnan(interval).all()


def test_every_metric_belongs_to_one_family_and_every_distance_is_better_small() -> None:
    assert tuple(name for family in FAMILIES for name in family.metrics) == METRICS
    assert {"hd95", "assd", "hd95_transunet", "hd95_nan_ignore"} == LOWER_IS_BETTER

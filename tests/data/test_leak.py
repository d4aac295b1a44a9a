"""Claims about the leak score: templated sentences score high, the same sentences shuffled score about nothing."""

import numpy as np
import pytest

from preceptor.data.leak import FEWEST, MOST, THRESHOLD, leak_score, mask_targets, report_features

NUMBERS = ["no", "one", "two", "three", "four", "five", "six"]


def templated(count, seed=0, size=32):
    """Sentences in the style of the lung sets, each built from the mask beside it: (reports, targets)."""
    rng = np.random.default_rng(seed)
    reports, targets = [], []
    for _ in range(count):
        areas = rng.random((3, 2)) < 0.4
        areas[rng.integers(3), rng.integers(2)] = True
        mask = np.zeros((size, size), bool)
        places = []
        for column, side in enumerate(("left", "right")):
            words = []
            for row, word in enumerate(("upper", "middle", "lower")):
                if areas[row, column]:
                    words.append(word)
                    top, start = row * size // 3, column * size // 2
                    mask[top : top + rng.integers(3, 9), start : start + rng.integers(4, 12)] = True
            if words:
                places.append(f"{'all' if len(words) == 3 else ' '.join(words)} {side} lung")
        sides = "Bilateral" if areas.any(0).all() else "Unilateral"
        reports.append(f"{sides} pulmonary infection, {NUMBERS[areas.sum()]} infected areas, {' and '.join(places)}.")
        targets.append(mask_targets(mask))
    return reports, np.array(targets)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sentences_built_from_masks_leak(seed):
    leak = leak_score(*templated(80, seed))
    assert leak["score"] > 0.6
    assert leak["leaks"]
    assert leak["message"].startswith("the reports describe the mask: leak score 0.")
    assert "upper bound" in leak["message"]
    assert leak["size_r2"] > THRESHOLD
    assert leak["position_r2"] > THRESHOLD


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_sentences_shuffled_do_not_leak(seed):
    reports, targets = templated(80, seed)
    shuffled = [reports[i] for i in np.random.default_rng(seed).permutation(len(reports))]
    leak = leak_score(shuffled, targets)
    assert leak["score"] < 0.1
    assert not leak["leaks"]
    assert leak["message"].startswith("the reports hardly give away size and position of the mask")


def test_a_report_of_the_size_alone_leaks_by_size_and_not_by_position():
    rng = np.random.default_rng(0)
    reports, targets = [], []
    for _ in range(80):
        side = int(rng.integers(4, 16))
        mask = np.zeros((32, 32), bool)
        top, left = rng.integers(0, 32 - side, 2)
        mask[top : top + side, left : left + side] = True
        reports.append("a large lesion" if side > 9 else "a small lesion")
        targets.append(mask_targets(mask))
    leak = leak_score(reports, np.array(targets))
    assert leak["leaks"]
    assert leak["size_r2"] > 0.5
    assert leak["position_r2"] < 0.1


def test_a_patient_named_in_the_report_leaks_only_without_groups():
    rng = np.random.default_rng(0)
    words = ["oak", "elm", "fir", "ash", "yew", "bay", "fig", "box", "may", "tea"]
    reports, targets, groups = [], [], []
    for word in words:
        side = int(rng.integers(4, 28))
        for _ in range(8):
            mask = np.zeros((32, 32), bool)
            mask[2 : 2 + side, 2 : 2 + side] = True
            reports.append(f"patient {word}")
            targets.append(mask_targets(mask))
            groups.append(word)
    assert leak_score(reports, np.array(targets))["score"] > 0.9
    assert leak_score(reports, np.array(targets), groups)["score"] < 0.2


def test_too_few_cases_give_no_score():
    leak = leak_score(*templated(FEWEST - 1))
    assert leak["score"] is None
    assert not leak["leaks"]
    assert leak["message"] == "too few cases with mask and report for a leak score: 11 of 12"


def test_masks_that_are_all_alike_give_no_score():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    reports, _ = templated(20)
    leak = leak_score(reports, np.stack([mask_targets(mask)] * 20))
    assert leak["score"] is None
    assert leak["message"] == "no leak score: all masks have the same size and position"


def test_one_report_for_all_cannot_leak():
    _, targets = templated(20)
    assert leak_score(["the same"] * 20, targets)["score"] == 0


def test_empty_masks_count_for_size_and_not_for_position():
    reports, targets = templated(40)
    reports += ["No infection."] * 20
    empty = np.stack([mask_targets(np.zeros((32, 32), bool))] * 20)
    leak = leak_score(reports, np.concatenate([targets, empty]))
    assert leak["cases"] == 60
    assert leak["leaks"]
    assert np.isfinite(leak["position_r2"])


def test_the_score_is_repeatable_and_large_sets_are_sampled():
    reports, targets = templated(50)
    many = reports * 41
    leak = leak_score(many, np.concatenate([targets] * 41))
    assert leak["cases"] == MOST
    assert leak == leak_score(many, np.concatenate([targets] * 41))


def test_mask_targets_are_area_centroid_and_quadrants():
    mask = np.zeros((4, 8), bool)
    mask[0, 0:2] = True
    mask[3, 4:6] = True
    np.testing.assert_allclose(mask_targets(mask), [4 / 32, 0.5, 3 / 8, 0.5, 0, 0, 0.5])
    assert np.isnan(mask_targets(np.zeros((4, 4), bool))[1:]).all()
    assert mask_targets(np.zeros((4, 4), bool))[0] == 0


def test_features_tell_which_side_a_word_belongs_to():
    features = report_features(["upper left and lower right lung", "lower left and upper right lung"] * 2)
    assert features.shape[0] == 4
    assert (features[0] != features[1]).any()
    np.testing.assert_array_equal(features[0], features[2])


def test_features_read_scripts_without_spaces():
    features = report_features(["左肺上叶感染", "右肺下叶感染", "左肺下叶感染", "右肺上叶感染"])
    assert features.shape[1] > 4

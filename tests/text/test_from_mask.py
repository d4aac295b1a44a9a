"""A mask is put into words that read back as its attributes."""

import numpy as np
import pytest

from preceptor.text.attributes import parse_attributes
from preceptor.text.from_mask import report_from_mask


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """[30, 40] with ones in the boxes (top, bottom, left, right)."""
    result = np.zeros((30, 40), np.uint8)
    for top, bottom, left, right in boxes:
        result[top:bottom, left:right] = 1
    return result


def test_the_patient_s_left_is_on_the_right_of_the_image():
    picture = mask((2, 5, 30, 35))
    assert report_from_mask(picture).text == "Unilateral pulmonary infection, one infected area, upper left lung."
    turned = report_from_mask(picture, patient_left="image_left")
    assert turned.text == "Unilateral pulmonary infection, one infected area, upper right lung."


def test_both_sides_and_all_thirds():
    report = report_from_mask(mask((0, 30, 25, 30), (22, 25, 3, 6), (12, 15, 3, 6)))
    assert report.text == (
        "Bilateral pulmonary infection, three infected areas, all left lung and middle lower right lung."
    )
    assert parse_attributes(report.text) == report.attributes


def test_an_area_across_the_middle_is_one_area_on_both_sides():
    report = report_from_mask(mask((2, 4, 10, 30)))
    assert (report.attributes["bilateral"], report.attributes["number"]) == (1, 1)


def test_specks_may_be_left_out():
    picture = mask((2, 5, 30, 35), (25, 26, 2, 3))
    assert report_from_mask(picture).attributes["number"] == 2
    assert report_from_mask(picture, smallest_area=4).text.endswith("one infected area, upper left lung.")


def test_diagonal_pixels_are_one_area():
    assert report_from_mask(np.eye(30, 40)).attributes["number"] == 1


def test_an_empty_mask_has_words_too():
    assert report_from_mask(mask()).text == "No pulmonary infection."


def test_the_text_says_where_it_comes_from():
    assert "reference mask" in report_from_mask(mask()).origin


def test_volumes_are_refused():
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        report_from_mask(np.zeros((3, 4, 5)))

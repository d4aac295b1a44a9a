"""Stored values become class indices by declared labels only, and resize as published."""

import json
import math
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.data.masks import (
    decode_mask,
    label_codes,
    proposal,
    propose_labels,
    resize_mask,
    resize_nearest,
    stored_values,
)
from preceptor.errors import DataError, RecipeError

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "text_data.json").read_text())
TWO = {"background": 0, "infection": 255}


def fill():
    spec = util.spec_from_file_location("golden_fill", FOLDER / "fill.py")
    module = util.module_from_spec(spec)
    sys.modules["golden_fill"] = module
    spec.loader.exec_module(module)
    return module


def golden_mask(mask):
    height, width = mask["shape"]
    noise = fill().array(mask["array"], (math.ceil(height / 6), math.ceil(width / 6)))
    noise = np.kron(noise, np.ones((6, 6)))[:height, :width]
    high = 1 if mask["kind"] == "mask1" else 255
    values = np.where(noise > 0.2, high, 0)
    if mask["kind"] == "mask_grey":
        values = np.where((noise > 0) & (noise <= 0.2), 128, values)
    values = values.astype(np.uint8)
    return values if mask["channels"] == 1 else np.stack([values, 0 * values, 0 * values], -1)


@pytest.mark.parametrize("item", [p for p in GOLDEN["preparation"] if "mask" in p], ids=lambda item: item["case"])
def test_published_rules_match_the_originals(item):
    stored, size = golden_mask(item["mask"]), (item["size"], item["size"])
    arrays = np.load(FOLDER / "text_data.npz")
    textfreekd = arrays[item["expected"]["textfreekd_mask"]["npz"]].reshape(size).T
    np.testing.assert_array_equal(resize_mask(stored, size, {}, "eq255"), textfreekd)
    c2fvl = arrays[item["expected"]["c2fvl_mask"]["npz"]].reshape(size)
    differing = (resize_mask(stored, size, {}, "bilinear_gt0") != c2fvl).mean()
    assert differing <= item["expected"]["c2fvl_mask"]["tolerance_share_of_pixels"]


def test_nearest_is_that_of_pytorch():
    generator = np.random.default_rng(0)
    for _ in range(100):
        height, width, *size = (int(n) for n in generator.integers(1, 300, 4))
        stored = generator.integers(0, 255, (height, width), dtype=np.uint8)
        theirs = torch.nn.functional.interpolate(torch.from_numpy(stored)[None, None].float(), size=size)[0, 0]
        np.testing.assert_array_equal(resize_nearest(stored, tuple(size)), theirs.numpy())


def test_declared_values_become_indices_in_the_order_of_the_labels():
    stored = np.array([[0, 4], [9, 200]], np.uint16)
    labels = {"background": 0, "lung": [4, 9], "heart": 200}
    np.testing.assert_array_equal(decode_mask(stored, labels, "exact"), [[0, 1], [1, 2]])
    np.testing.assert_array_equal(decode_mask(stored.astype(np.float32), labels, "exact"), [[0, 1], [1, 2]])


def test_colours_become_indices():
    stored = np.array([[[0, 0, 0], [128, 0, 0]], [[255, 255, 255], [0, 0, 0]]], np.uint8)
    labels = {"background": "#000000", "tumour": "#800000", "marker": 255}
    np.testing.assert_array_equal(decode_mask(stored, labels, "exact"), [[0, 1], [2, 0]])
    empty = np.zeros((2, 2), np.uint8)
    np.testing.assert_array_equal(decode_mask(empty, labels, "exact"), empty)
    np.testing.assert_array_equal(decode_mask(np.stack([stored[..., 1]] * 3, -1), TWO, "exact"), [[0, 0], [1, 0]])


def test_undeclared_values_stop_and_propose_the_remap():
    stored = np.array([[0, 1], [0, 1]], np.uint8)
    with pytest.raises(DataError) as caught:
        decode_mask(stored, TWO, "exact", "case a")
    assert "case a" in str(caught.value)
    assert "1 (2 pixels)" in str(caught.value)
    assert "declare `data.labels: {background: 0, foreground: 1}`" in str(caught.value)


def test_ignored_values_take_the_index_that_takes_no_part():
    stored = np.array([[0, 7, 2], [7, 2, 9]], np.uint8)
    labels = {"background": 0, "organ": 2}
    np.testing.assert_array_equal(decode_mask(stored, labels, "exact", ignore=[7, 9]), [[0, 255, 1], [255, 1, 255]])
    large = resize_mask(stored, (4, 6), labels, "exact", ignore=[7, 9])
    np.testing.assert_array_equal(large[::2, ::2], decode_mask(stored, labels, "exact", ignore=[7, 9]))
    with pytest.raises(DataError, match=r"not declared(.|\n)*found: +9 \(1 pixels\)(.|\n)*expected: 0, 2, 7"):
        decode_mask(stored, labels, "exact", ignore=[7])
    with pytest.raises(RecipeError, match="yet to be ignored"):
        decode_mask(stored, labels, "exact", ignore=[2])


def test_blurred_masks_are_offered_a_threshold():
    stored = np.array([[0, 3, 127, 255]], np.uint8)
    with pytest.raises(DataError, match="mask_rule: threshold"):
        decode_mask(stored, TWO, "exact")
    np.testing.assert_array_equal(decode_mask(stored, TWO, "threshold"), [[0, 0, 0, 1]])


def test_undeclared_labels_and_colours_are_proposed():
    with pytest.raises(DataError, match=r"not declared(.|\n)*foreground: 255"):
        decode_mask(np.array([[0, 255]], np.uint8), {}, "exact")
    colours = np.array([[[0, 0, 0], [0, 255, 0]]], np.uint8)
    with pytest.raises(DataError, match=r'class_1: "#00ff00"|foreground: "#00ff00"'):
        decode_mask(colours, TWO, "exact")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([0, 1], [0, 1]),
        ([0, 127, 128, 255], [0, 0, 1, 1]),
        ([0.2, 0.6], [0, 1]),
        ([0, 60000], [0, 1]),
        ([0, 0], [0, 0]),
    ],
)
def test_threshold_is_half_of_full_scale(stored, expected):
    np.testing.assert_array_equal(decode_mask(np.array([stored]), {}, "threshold"), [expected])


def test_threshold_refuses_what_has_no_scale():
    with pytest.raises(DataError, match="neither 0/1 nor 0/255"):
        decode_mask(np.array([[0, 1, 2]]), {}, "threshold")


def test_nan_in_a_mask_stops():
    with pytest.raises(DataError, match="NaN"):
        decode_mask(np.array([[0.0, np.nan]]), TWO, "exact", "m.nii")


@pytest.mark.parametrize(
    "labels", [{"a": 0, "b": 0}, {"a": 0, "b": "#12"}, {"a": 0, "b": "green"}, {str(at): at for at in range(256)}]
)
def test_contradictory_labels_are_refused(labels):
    with pytest.raises(RecipeError):
        label_codes(labels)


def test_rules_of_two_classes_refuse_three():
    with pytest.raises(RecipeError, match="two classes"):
        decode_mask(np.zeros((2, 2), np.uint8), {"a": 0, "b": 1, "c": 2}, "eq255")
    with pytest.raises(RecipeError, match="no such rule"):
        decode_mask(np.zeros((2, 2), np.uint8), {}, "half")


@pytest.mark.parametrize(
    ("values", "labels", "rule"),
    [
        ([0, 1], {"background": 0, "foreground": 1}, "exact"),
        ([255, 0], {"background": 0, "foreground": 255}, "exact"),
        ([0, 7, 3], {"background": 0, "class_1": 3, "class_2": 7}, "exact"),
        (range(256), {"background": 0, "foreground": 255}, "threshold"),
        ([0.0, 0.25, 1.0], {"background": 0, "foreground": 1}, "threshold"),
        (["#00ff00", 0], {"background": "#000000", "foreground": "#00ff00"}, "exact"),
        ([], {}, "exact"),
    ],
)
def test_proposals(values, labels, rule):
    assert propose_labels(values) == (labels, rule)
    assert proposal(values)


def test_stored_values_are_counted():
    assert stored_values(np.array([[0, 0, 2]], np.float64)) == {0: 2, 2: 1}
    assert stored_values(np.array([[[1, 2, 3], [1, 1, 1]]], np.uint8)) == {"#010203": 1, "#010101": 1}

"""Masks, images and rows find each other as the published loaders pair them."""

import json
from pathlib import Path

import pytest

from preceptor.data.pairing import file_name, pair, stem

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "text_data.json").read_text())


@pytest.mark.parametrize("item", GOLDEN["pairing"], ids=lambda item: item["Image"])
def test_layout_b_pairs_as_textfreekd(item):
    expected = item["expected"]["textfreekd_student"]
    image, mask = (expected[kind].split("/")[1] for kind in ("image", "mask"))
    others = ["other.png", "mask_other.png"]
    assert pair([item["Image"]], [*others, image]) == {item["Image"]: image}
    assert pair([item["Image"]], [*others, mask]) == {item["Image"]: mask}
    assert pair([image], [*others, mask]) == {image: mask} or "mask_a_mask_b" in mask
    assert stem(mask) == expected["id"]


@pytest.mark.parametrize("item", GOLDEN["pairing_layout_a"], ids=lambda item: item["rule"])
def test_layout_a_pairs_as_published(item):
    image = item.get("image_file") or item["expected"]["image"]
    mask = item.get("mask_file") or item["expected"]["mask"]
    assert pair([image], [mask, "z.png"]) == {image: mask}
    assert pair([item["expected"]["text_key"]], [mask]) == {item["expected"]["text_key"]: mask}


@pytest.mark.parametrize("item", GOLDEN["pairing_ours"], ids=lambda item: item["Image"])
def test_folders_and_backslashes_are_stripped(item):
    assert file_name(item["Image"]) == item["expected"]["name"]


def test_exact_names_go_before_loose_ones():
    assert pair(["a", "a.tif", "mask_a.png"], ["a.png", "a.tif", "mask_a.png"]) == {
        "a.tif": "a.tif",
        "mask_a.png": "mask_a.png",
        "a": "a.png",
    }


def test_each_name_is_used_once():
    assert pair(["a.jpg", "a.bmp"], ["a.png"]) == {"a.jpg": "a.png"}


def test_dots_inside_names_and_double_endings():
    assert stem("TCGA.18.nii.gz") == "TCGA.18"
    assert stem("v1.2") == "v1.2"
    assert pair(["TCGA.18"], ["TCGA.18.tif", "TCGA.png"]) == {"TCGA.18": "TCGA.18.tif"}

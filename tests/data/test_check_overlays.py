"""Claims about the pictures of mismatched cases."""

import io

import numpy as np
from PIL import Image

from preceptor.data.case import Case
from preceptor.data.check_findings import finding
from preceptor.data.check_overlays import add_overlays, overlay


def case(folder, name, mask_shape):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.tile(np.arange(12, dtype=np.uint8), (10, 1))).save(folder / f"{name}.png")
    mask = np.zeros(mask_shape, np.uint8)
    mask[-1, -1] = 255
    Image.fromarray(mask).save(folder / f"{name}-mask.png")
    return Case(name, folder / f"{name}.png", folder / f"{name}-mask.png")


def test_image_and_mask_are_drawn_pixel_upon_pixel_from_one_corner(tmp_path):
    shown = np.asarray(Image.open(io.BytesIO(overlay(case(tmp_path, "a", (14, 8))))))
    assert shown.shape == (14, 12, 3)
    assert tuple(shown[13, 7]) == (127, 0, 0)
    assert tuple(shown[0, 11]) == (200, 200, 200)
    assert tuple(shown[13, 11]) == (0, 0, 0)


def test_only_the_first_twenty_mismatches_get_a_picture_and_other_findings_none(tmp_path):
    cases = [case(tmp_path / "data", f"c{i:02d}", (4, 4)) for i in range(22)]
    findings = [finding("error", "shape-mismatch", c.name, "image 10 x 12, mask 4 x 4", "mend it") for c in cases]
    findings.append(finding("error", "nan-image", "c00", "1 of 4 values"))
    result = add_overlays(findings, cases, tmp_path / "o")
    assert len(list((tmp_path / "o").iterdir())) == 20
    assert result[0].message == f"image 10 x 12, mask 4 x 4; see {tmp_path / 'o' / 'c00.png'}; remedy: mend it"
    assert result[20:] == findings[20:]

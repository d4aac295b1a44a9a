"""Slices know their volume and come back in their order."""

from pathlib import Path

import nibabel as nib
import numpy as np

from preceptor.data.case import Case
from preceptor.data.volume_cases import by_volume, expand_volumes


def test_every_slice_of_a_file_names_its_volume(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.int16), np.eye(4)), tmp_path / "ct.nii")
    found = list(expand_volumes([Case("ct", tmp_path / "ct.nii"), Case("flat", tmp_path / "flat.png")]))
    assert [(case.name, case.slice, case.volume, case.group) for case in found] == [
        ("ct-000", 0, "ct", "ct"),
        ("ct-001", 1, "ct", "ct"),
        ("ct-002", 2, "ct", "ct"),
        ("flat", None, None, None),
    ]
    (named, *_) = expand_volumes([Case("ct", tmp_path / "ct.nii", group="anna", volume="anna-1")])
    assert (named.group, named.volume) == ("anna", "anna-1")


def test_slices_of_a_file_come_by_number_and_slice_files_as_given():
    path = Path("x")
    numbered = [Case(f"v-{n}", path, slice=n, volume="v") for n in (10, 2, 1)]
    files = [Case(name, path, volume="w") for name in ("w_2", "w_10")]
    found = by_volume([numbered[0], files[0], Case("alone", path), *numbered[1:], files[1]])
    assert {name: [case.name for case in cases] for name, cases in found.items()} == {
        "v": ["v-1", "v-2", "v-10"],
        "w": ["w_2", "w_10"],
        "alone": ["alone"],
    }

"""A file that is not what its name says, or is damaged, is named together with its reader and its true content."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from preceptor.data.pairing import SUFFIXES
from preceptor.data.readers import read_image, read_mask, suffixes, volume_slices
from preceptor.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


@pytest.fixture
def png(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def nifti(tmp_path):
    nib.save(nib.Nifti1Image(NOISE[..., 0].astype(np.int16), np.eye(4)), tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


def test_endings_are_listed():
    assert (
        {".png", ".jpg", ".bmp", ".tif", ".nii", ".nii.gz", ".dcm", ".h5", ".npz"} <= set(suffixes()) == set(SUFFIXES)
    )


@pytest.mark.parametrize("name", ["b.nii.gz", "b.nii", "b.jpg", "b.tif", "b.dcm", "b.bmp", "b.h5", "b.npz"])
def test_a_png_under_another_name_is_found_out(png, name):
    path = png.rename(png.with_name(name))
    with pytest.raises(
        DataError, match=r"(?s)b\..*this is not .*, as its name says.*the content is PNG.*rename it to .png"
    ):
        read_image(path)
    if ".nii" in name:
        with pytest.raises(DataError, match="the content is PNG"):
            volume_slices(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.nii", "a.nii.gz", "a.dcm", "a.h5", "a.npz"])
def test_empty_files_are_called_empty(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)a\..*an empty file \(0 bytes\)"):
        read_mask(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
@pytest.mark.parametrize("kept", [0.6, 0.02])
def test_pictures_cut_short_stop(tmp_path, name, kept):
    Image.fromarray(NOISE).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: max(12, int(kept * len(content)))])
    with pytest.raises(DataError, match=r"(?s)a\..*cannot be read as \w+\n.*bytes, damaged or cut short"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.01])
def test_volumes_cut_short_stop(nifti, kept):
    content = nifti.read_bytes()
    nifti.write_bytes(content[: max(20, int(kept * len(content)))])
    with pytest.raises(DataError, match=r"v\.nii\.gz.*(?s:.)*(cut short|damaged)"):
        read_image(nifti)
    plain = nifti.with_name("v.nii")
    plain.write_bytes(gzip.decompress(content)[: 352 + int(kept * 1200)])
    with pytest.raises(DataError, match="cannot be read as NIfTI"):
        read_image(plain)


def test_wrong_packing_of_nifti_is_explained(nifti):
    content = gzip.decompress(nifti.read_bytes())
    bare = nifti.with_name("bare.nii.gz")
    bare.write_bytes(content)
    with pytest.raises(DataError, match=r"without compression\n.*rename it to \.nii"):
        read_image(bare)
    packed = nifti.with_name("packed.nii")
    packed.write_bytes(nifti.read_bytes())
    with pytest.raises(DataError, match="a gzip archive"):
        read_image(packed)
    other = nifti.with_name("other.nii.gz")
    other.write_bytes(gzip.compress(b"hello, this is text"))
    with pytest.raises(DataError, match="gzip archive with other content"):
        read_image(other)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\x03\x04....", "zip archive"),
        (b"plain words", "unknown; it begins with 70 6c 61 69"),
    ],
)
def test_usual_impostors_are_named(tmp_path, content, told):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_image(tmp_path / "a.png")


def test_missing_files_unknown_endings_and_needless_slices(tmp_path, png):
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"no reader(.|\n)*\.gif; the content is a GIF"):
        read_image(tmp_path / "a.gif")
    with pytest.raises(DataError, match="only volumes have slices"):
        read_image(png, 0)
    assert volume_slices(png) is None

"""Single-frame DICOM comes rescaled, with larger always brighter, and its spacing."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, SecondaryCaptureImageStorage, generate_uid

from preceptor.data.readers import read_image, read_mask
from preceptor.errors import DataError

PIXELS = np.arange(12 * 17, dtype=np.uint16).reshape(12, 17)


def write(path, pixels=PIXELS, syntax=ExplicitVRLittleEndian, **fields):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName = "Secret^Name"
    data.Rows, data.Columns = pixels.shape[-2:] if pixels.shape[-1] != 3 else pixels.shape[:2]
    data.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    data.PhotometricInterpretation = "RGB" if data.SamplesPerPixel == 3 else "MONOCHROME2"
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = 8 if pixels.dtype.itemsize == 1 else 12
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes() if not syntax.is_compressed else pydicom.encaps.encapsulate([b"\xff\xd8" * 8])
    for name, value in fields.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_stored_type_stays_where_nothing_is_rescaled(tmp_path):
    picture = read_image(write(tmp_path / "a.dcm", PixelSpacing=[0.5, 0.25]))
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert picture.geometry.spacing == (0.5, 0.25)
    assert picture.geometry.format == "dicom"


def test_slope_and_intercept_apply_to_images_and_not_to_masks(tmp_path):
    path = write(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS * np.float32(2) - 1024)
    np.testing.assert_array_equal(read_mask(path).pixels, PIXELS)


def test_monochrome1_is_inverted_within_the_stored_bits(tmp_path):
    path = write(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1", ImagerPixelSpacing=[0.2, 0.2])
    np.testing.assert_array_equal(read_image(path).pixels, 4095 - PIXELS)
    assert read_image(path).geometry.spacing == (0.2, 0.2)
    signed = PIXELS.astype(np.int16) - 50
    path = write(tmp_path / "b.dcm", signed, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path).pixels, -1 - signed)


def test_colour_and_files_without_ending(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(write(tmp_path / "IM0001", colour)).pixels, colour)


def test_several_frames_are_refused(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((3, 4, 5), np.uint16), NumberOfFrames=3)
    with pytest.raises(DataError, match=r"several frames\n.*3"):
        read_image(path)


def test_missing_decoder_is_named_and_the_patient_is_not(tmp_path):
    path = write(tmp_path / "a.dcm", syntax=JPEGLSLossless)
    with pytest.raises(DataError, match=r"no installed decoder(.|\n)*JPEG-LS Lossless") as caught:
        read_image(path)
    assert "Secret" not in str(caught.value)


def test_truncated_and_pixelless_files(tmp_path):
    path = write(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="cannot be read as DICOM"):
        read_image(path)
    path = write(tmp_path / "b.dcm", PixelSpacing=[0, 0])
    assert read_image(path).geometry.spacing is None
    data = pydicom.dcmread(path)
    del data.PixelData
    data.save_as(path)
    with pytest.raises(DataError, match="no integer pixels"):
        read_image(path)

"""PNG, JPEG, BMP and TIFF come row-major, in the stored type and bounded in size."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from preceptor.data import pictures
from preceptor.data.readers import read_image, read_mask
from preceptor.errors import DataError

GREY = np.arange(20 * 31, dtype=np.uint16).reshape(20, 31)
COLOUR = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, colour=0, data=b""):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return start + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF"])
def test_colour_is_row_major(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOUR).save(path, None if suffix != "TIFF" else "TIFF")
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, COLOUR)
    assert picture.geometry.shape == (20, 31)
    assert picture.geometry.spacing is None


def test_jpeg_is_close(tmp_path):
    smooth = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[:, None], (60, 40))
    Image.fromarray(np.ascontiguousarray(smooth)).save(tmp_path / "a.jpg", quality=95)
    pixels = read_image(tmp_path / "a.jpg").pixels
    assert pixels.shape == (60, 40)
    assert np.abs(pixels.astype(int) - smooth).max() < 4


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_kept(tmp_path, name):
    Image.fromarray(GREY * 90).save(tmp_path / name)
    pixels = read_image(tmp_path / name).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, GREY * 90)


def test_colour_png_of_sixteen_bits_is_refused_rather_than_reduced(tmp_path):
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, b"\0" + b"\1\2" * 6))
    with pytest.raises(DataError, match=r"16 bits for each of 3 channels(.|\n)*save it as TIFF"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, COLOUR[..., 0]], ids=["grey16", "rgb", "grey8"])
def test_tiff_compressions(tmp_path, compression, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pixels)


def test_planar_and_predicted_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOUR.transpose(2, 0, 1), planarconfig="separate", photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, COLOUR)
    deep = COLOUR.astype(np.uint16) * 256
    tifffile.imwrite(tmp_path / "b.tif", deep, compression="zlib", predictor=True, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif").pixels, deep)


def test_white_is_zero_is_inverted_as_shown(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.uint8), photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, 255 - GREY.astype(np.uint8))


def test_stacks_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="more than one plain picture"):
        read_image(tmp_path / "a.tif")
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="several pictures"):
        read_image(tmp_path / "a.png")


def test_alpha_is_dropped_and_bilevel_becomes_0_and_255(tmp_path):
    alpha = np.dstack([COLOUR, np.full((20, 31), 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png").pixels, COLOUR)
    Image.fromarray(alpha[..., 2:]).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png").pixels, COLOUR[..., 2])
    Image.fromarray(COLOUR[..., 0] > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png").pixels, (COLOUR[..., 0] > 99) * 255)


def test_palettes_give_colours_and_grey_palettes_grey_masks(tmp_path):
    indices = (GREY % 3).astype(np.uint8)
    for name, colours in (("grey", [0, 0, 0, 255, 255, 255, 90, 90, 90]), ("red", [0, 0, 0, 255, 0, 0, 0, 9, 0])):
        image = Image.frombytes("P", (31, 20), indices.tobytes())
        image.putpalette(colours)
        image.save(tmp_path / f"{name}.png")
        table = np.array(colours, np.uint8).reshape(3, 3)
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png").pixels, table[indices])
        expected = table[indices][..., 0] if name == "grey" else table[indices]
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png").pixels, expected)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000))
    with pytest.raises(DataError, match="60000 x 60000 pixels"):
        read_image(tmp_path / "a.png")


def test_the_bound_is_ours_and_gives_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").pixels.shape == (20, 31, 3)
    monkeypatch.setattr(pictures, "PIXEL_LIMIT", 100)
    for name in ("a.png", "a.tif"):
        Image.fromarray(COLOUR).save(tmp_path / name)
        with pytest.raises(DataError, match="absurd"):
            read_image(tmp_path / name)

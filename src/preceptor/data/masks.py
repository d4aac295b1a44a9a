"""Stored mask values to class indices, at the mask's own size or resized, by declared labels and a named rule.

Rules (specification of text-annotated data sets, section 5):
exact: every stored value is declared, as a class or to be ignored; nearest neighbour.
threshold: two classes; above half of full scale, which is 1 for 0/1 files and 255 for other 8-bit ones; nearest.
eq255: two classes; the first channel equals 255; nearest (TextFreeKD, LanGuideMedSeg).
bilinear_gt0: two classes; grey value interpolated in 8-bit arithmetic, any rounded result above 0 (LViT, C2FVL).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from preceptor.errors import DataError, RecipeError
from preceptor.recipe_data import IGNORED

RULES = ("exact", "threshold", "eq255", "bilinear_gt0")

MANY_VALUES = 32
"""More distinct grey values than this are a soft mask, not classes."""

Value = int | float | str


def decode_mask(
    pixels: np.ndarray, labels: Mapping[str, Any], rule: str, where: object = None, ignore: Sequence[int] = ()
) -> np.ndarray:
    """Class indices uint8 [H, W], 0..C-1 in the order of `labels`, of stored values [H, W] or colours [H, W, 3].

    labels: class name to stored value, list of values, or colour "#rrggbb"; the first is the background. Rules other
    than "exact" need two classes or an empty `labels`. where: file or case, named in errors. ignore: stored values
    that become IGNORED, under "exact" only.
    Raises DataError for values that are not declared (with the labels to declare) or that fit no rule, and RecipeError
    for labels that contradict each other or the rule.
    """
    _two_classes(labels, rule)
    pixels = _plain(pixels, where)
    if rule == "exact":
        return _exact(pixels, labels, where, ignore)
    if rule == "threshold":
        return _threshold(_one_channel(pixels, where), where)
    if rule == "eq255":
        return (_first_channel(pixels) == 255).astype(np.uint8)
    return (_luma(pixels, where) > 0).astype(np.uint8)


def resize_mask(
    pixels: np.ndarray,
    size: tuple[int, int],
    labels: Mapping[str, Any],
    rule: str,
    where: object = None,
    ignore: Sequence[int] = (),
) -> np.ndarray:
    """Class indices uint8 [height, width] of stored values, resized as the rule says. size: (height, width).

    Arguments and errors as for `decode_mask`.
    """
    if rule == "bilinear_gt0":
        _two_classes(labels, rule)
        return (resize_bilinear_8bit(_luma(_plain(pixels, where), where), size) > 0).astype(np.uint8)
    return resize_nearest(decode_mask(pixels, labels, rule, where, ignore), size)


def resize_nearest(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] to `size` by the source pixel floor(i * H / height), in float32 as PyTorch's `nearest`."""
    rows, columns = (
        np.minimum(np.floor(np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(np.intp), old - 1)
        for old, new in zip(pixels.shape[:2], size, strict=True)
    )
    return np.ascontiguousarray(pixels[rows[:, None], columns[None, :]])


def resize_bilinear_8bit(grey: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] uint8 to `size`, bilinear without antialiasing, in fixed-point arithmetic as image libraries do it.

    Weights have 11 bits; the horizontal sums lose 4 bits, the vertical products 16, and two more are rounded off. So
    shares of a 0/1 mask below 0.75 may be lost, which float arithmetic would keep.
    """
    (top, bottom, down), (left, right, across) = (
        _neighbours(old, new) for old, new in zip(grey.shape, size, strict=True)
    )
    values = grey.astype(np.int64)
    sums = (values[:, left] * (2048 - across) + values[:, right] * across) >> 4
    upper, lower = (sums[top] * (2048 - down)[:, None]) >> 16, (sums[bottom] * down[:, None]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    place = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0, old - 1)
    first = np.floor(place).astype(np.intp)
    weight = np.rint((place - first) * 2048).astype(np.int64)
    return first, np.minimum(first + 1, old - 1), weight


def stored_values(pixels: np.ndarray) -> dict[Value, int]:
    """Every value of a mask and its number of pixels: integers or floats, "#rrggbb" where the channels differ."""
    pixels = _plain(pixels, None)
    if pixels.ndim == 3:
        codes, counts = np.unique(_codes(pixels), return_counts=True)
        return {f"#{int(code):06x}": int(count) for code, count in zip(codes, counts, strict=True)}
    values, counts = np.unique(pixels, return_counts=True)
    whole = pixels.dtype.kind in "iu" or bool((np.rint(values) == values).all())
    kept = [int(value) if whole else float(value) for value in values.tolist()]
    return dict(zip(kept, (int(count) for count in counts), strict=True))


def propose_labels(values: Iterable[Value]) -> tuple[dict[str, int | str], str]:
    """(labels, rule) that fit the values found in all masks of a data set; for error messages, never applied unasked.

    Two values become background and foreground, a few become class_1, class_2, ...; soft masks give the rule
    "threshold" with 0 and the largest value. ({}, "exact") where there is nothing to propose.
    """
    found = set(values)
    colours = sorted(value for value in found if isinstance(value, str))
    numbers = sorted(value for value in found if not isinstance(value, str))
    if colours:
        colours = sorted({*colours, *(f"#{int(v):02x}{int(v):02x}{int(v):02x}" for v in numbers if 0 <= v <= 255)})
        return _named(colours, len(colours) <= MANY_VALUES)
    soft = any(value != int(value) for value in numbers if np.isfinite(value)) or len(numbers) > MANY_VALUES
    if numbers and (soft or not np.isfinite(numbers).all()):
        return {"background": 0, "foreground": 1 if numbers[-1] <= 1 else 255}, "threshold"
    return _named([int(value) for value in numbers], True)


def _named(values: list[Any], few: bool) -> tuple[dict[str, int | str], str]:
    if not values or not few:
        return {}, "exact"
    background = values.pop(next((at for at, value in enumerate(values) if value in (0, "#000000")), 0))
    names = ["foreground"] if len(values) == 1 else [f"class_{at}" for at in range(1, len(values) + 1)]
    return {"background": background, **dict(zip(names, values, strict=True))}, "exact"


def proposal(values: Iterable[Value]) -> str:
    """`propose_labels` as the lines of a recipe, on one line."""
    labels, rule = propose_labels(values)
    if not labels:
        return "save the mask with one number or colour for each class"
    inside = ", ".join(f"{name}: {_quoted(value)}" for name, value in labels.items())
    return f"declare `data.labels: {{{inside}}}`" + (f" and `data.mask_rule: {rule}`" if rule != "exact" else "")


def _quoted(value: int | str) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _exact(pixels: np.ndarray, labels: Mapping[str, Any], where: object, ignore: Sequence[int]) -> np.ndarray:
    codes = label_codes(labels, ignore)
    if not labels:
        found = stored_values(pixels)
        raise DataError(
            "the labels of the mask are not declared", where=where, found=_listed(found), remedy=proposal(found)
        )
    if pixels.ndim == 3:
        stored = _codes(pixels)
        known = {code if colour else code * 0x010101: at for (colour, code), at in codes.items() if code >= 0}
    else:
        stored = pixels
        grey = {code & 255: at for (colour, code), at in codes.items() if colour and code == (code & 255) * 0x010101}
        known = grey | {code: at for (colour, code), at in codes.items() if not colour}
    result = np.full(stored.shape, IGNORED, dtype=np.uint8)
    for code, at in known.items():
        result[stored == code] = at
    found = stored_values(pixels) if (result == IGNORED).any() else {}
    strange = {value: count for value, count in found.items() if not _is_declared(value, known)}
    if strange:
        declared = {f"#{code:06x}" if colour else code for colour, code in codes}
        remedy = proposal(found)
        if len(found) > 2 and set(found) >= {0, 255} and len(labels) == 2:
            remedy += "; or, for a two-class mask blurred by saving, `data.mask_rule: threshold`"
        expected = ", ".join(str(value) for value in sorted(declared, key=str))
        what = "the mask stores values that are not declared"
        raise DataError(what, where=where, found=_listed(strange), expected=expected, remedy=remedy)
    return result


def _is_declared(value: Value, known: Mapping[int, int]) -> bool:
    return (int(value[1:], 16) if isinstance(value, str) else value) in known


def label_codes(labels: Mapping[str, Any], ignore: Sequence[int] = ()) -> dict[tuple[bool, int], int]:
    """(is a colour, value or 0xrrggbb) to class index, IGNORED for the values of `ignore`.

    Raises RecipeError for contradictions and unknown colours.
    """
    result: dict[tuple[bool, int], int] = {}
    if len(labels) > 255:
        raise RecipeError("too many classes", where="data.labels", found=len(labels), expected="255 at most")
    for at, (name, declared) in enumerate(labels.items()):
        for value in declared if isinstance(declared, list | tuple) else [declared]:
            code = _colour(name, value) if isinstance(value, str) else (False, int(value))
            if code in result:
                raise RecipeError("two classes have the same value", where=f"data.labels.{name}", found=value)
            result[code] = at
    for value in ignore:
        if (False, value) in result:
            raise RecipeError("a value is a class and yet to be ignored", where="data.ignore", found=value)
    return result | {(False, value): IGNORED for value in ignore}


def _colour(name: str, text: str) -> tuple[bool, int]:
    digits = text.removeprefix("#").lower()
    if len(digits) != 6 or len(text) != 7 or set(digits) - set("0123456789abcdef"):
        raise RecipeError("this is no colour", where=f"data.labels.{name}", found=text, expected='such as "#00ff00"')
    return True, int(digits, 16)


def _two_classes(labels: Mapping[str, Any], rule: str) -> None:
    if rule not in RULES:
        raise RecipeError("no such rule", where="data.mask_rule", found=rule, expected=", ".join(RULES))
    if rule != "exact" and len(labels) not in (0, 2):
        remedy = "use `data.mask_rule: exact`"
        raise RecipeError(f"the rule {rule} is for two classes", where="data.labels", found=len(labels), remedy=remedy)


def _threshold(grey: np.ndarray, where: object) -> np.ndarray:
    largest = float(grey.max())
    if 1 < largest < 128:
        found = f"values up to {largest:g}"
        remedy = f"use `data.mask_rule: exact`, and {proposal(stored_values(grey))}"
        raise DataError("the mask is neither 0/1 nor 0/255", where=where, found=found, remedy=remedy)
    full = 1.0 if largest <= 1 else max(255.0, largest)
    return (grey > full / 2).astype(np.uint8)


def _plain(pixels: np.ndarray, where: object) -> np.ndarray:
    """[H, W] numbers, or [H, W, 3] where the channels differ. Raises DataError for anything else, NaN or infinity."""
    pixels = np.asarray(pixels)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[-1] == 3 and bool((pixels == pixels[..., :1]).all()):
        pixels = pixels[..., 0]
    colours = pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    if pixels.size == 0 or not (pixels.ndim == 2 or colours):
        found, expected = f"{pixels.dtype} {list(pixels.shape)}", "[H, W], or 8-bit [H, W, 3]"
        raise DataError("this is no mask", where=where, found=found, expected=expected)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DataError("the mask holds NaN or infinity", where=where, remedy="write the mask again, as integers")
    return pixels


def _one_channel(pixels: np.ndarray, where: object) -> np.ndarray:
    return pixels if pixels.ndim == 2 else _luma(pixels, where)


def _first_channel(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else pixels[..., 0]


def _luma(pixels: np.ndarray, where: object) -> np.ndarray:
    """Grey uint8 [H, W]: 0.299 R + 0.587 G + 0.114 B, in 14-bit fixed point."""
    if pixels.ndim == 3:
        red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
        return ((4899 * red + 9617 * green + 1868 * blue + 8192) >> 14).astype(np.uint8)
    if pixels.dtype != np.uint8:
        if pixels.min() < 0 or pixels.max() > 255 or (pixels.dtype.kind == "f" and (pixels != np.rint(pixels)).any()):
            found = f"{pixels.dtype}, {pixels.min()} to {pixels.max()}"
            raise DataError("the rule is for 8-bit masks", where=where, found=found, expected="0 to 255")
        return pixels.astype(np.uint8)
    return pixels


def _codes(colours: np.ndarray) -> np.ndarray:
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def _listed(values: Mapping[Value, int], most: int = 8) -> str:
    common = sorted(values.items(), key=lambda item: -item[1])[:most]
    text = ", ".join(f"{value} ({count} pixels)" for value, count in common)
    return text + (f" and {len(values) - most} more values" if len(values) > most else "")

"""Generated chest films with infected areas, look-alikes, and reports that say which are which.

In each film some zones of the lungs (left or right, upper, middle or lower third) hold infected areas and other zones
hold look-alikes: opacities of the same brightness, size and softness, which are not in the mask. They differ from
infection by a finer grain whose strengths overlap widely, so that the image alone is hardly enough, while the report
names the infected zones. Every film is a function of (seed, number) alone.
"""

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preceptor.data.chest import Chest, Numbers, blurred, draw_chest, draw_devices, expose
from preceptor.errors import DataError, StorageError
from preceptor.recipe_data import PhantomRecipe
from preceptor.storage import write_bytes, write_text
from preceptor.text.attributes import ATTRIBUTES, THIRDS, sentence

Zone = tuple[str, str]
"""("left" or "right", one of THIRDS), by the patient's sides: the patient's left is on the right of the image."""

ZONES: tuple[Zone, ...] = tuple((side, third) for side in ("left", "right") for third in THIRDS)
FILMS = (0, 1, 1, 2, 2, 2)
"""Of every six films, the patients they show: each three patients have one, two and three films."""
HEALTHY, WIDE = 0.1, 0.3
"""Shares of films without infection, and of areas that reach over two zones where there is room."""
TEST, VALIDATION = 0.25, 0.13
GRAIN = {True: (0.20, 0.70), False: (0.0, 0.50)}
"""Range of the strength of the fine grain in infected areas and in look-alikes."""


@dataclass(frozen=True)
class Phantom:
    """One film. image: uint8 [S, S]. mask: uint8 [S, S], 0 or 255. report: a sentence. group: the patient."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    report: str
    group: str


def describe(zones: Iterable[Zone], areas: int) -> str:
    """The sentence for a number of infected areas in these zones, left lung before right; none: no infection."""
    named = {side[0] + third for side, third in zones}
    values = dict.fromkeys(ATTRIBUTES, 0) | dict.fromkeys(named, 1)
    sides = {name[0] for name in named}
    return sentence(values | {"bilateral": int(len(sides) == 2), "number": areas})


def draw_phantom(seed: int, number: int, size: int) -> Phantom:
    """Film `number` of the set `seed`, `size` pixels wide and high. Raises DataError below 32 pixels."""
    if size < 32:
        raise DataError("a chest film needs more pixels", where="phantoms.size", found=size, expected="32 or more")
    patient = 3 * (number // len(FILMS)) + FILMS[number % len(FILMS)]
    numbers = _numbers(seed, "film", number)
    pose = numbers.integers(2**62)
    chest = draw_chest(size, _numbers(seed, "patient", patient), np.random.default_rng(pose))
    density = chest.density + draw_devices(size, np.random.default_rng(pose), numbers)
    infected, alike = _choose(numbers)
    mask = np.zeros((size, size), bool)
    for zones, is_infection in ((infected, True), (alike, False)):
        for area in zones:
            haze, inside = _opacity(chest, area, numbers, *GRAIN[is_infection])
            density = density + haze
            mask |= inside & is_infection
    named = [zone for area in infected for zone in area]
    return Phantom(
        f"film-{number:04d}",
        expose(density, numbers),
        np.where(mask, 255, 0).astype(np.uint8),
        describe(named, len(infected)),
        f"patient-{patient:04d}",
    )


def _numbers(seed: int, purpose: str, number: int) -> Numbers:
    return np.random.default_rng([abs(seed), int(seed < 0), len(purpose), number])


def _choose(numbers: Numbers) -> tuple[list[list[Zone]], list[list[Zone]]]:
    """Areas of infection and look-alikes, each over one zone or two neighbours, never sharing a zone."""
    free = [ZONES[at] for at in numbers.permutation(len(ZONES))]
    infected = 0 if numbers.random() < HEALTHY else int(numbers.integers(1, 4))
    total = infected + int(numbers.integers(1, 4))
    chosen: tuple[list[list[Zone]], list[list[Zone]]] = ([], [])
    for placed in range(total):
        area = [free.pop()]
        beside = [zone for zone in free if _neighbours(zone, area[0])]
        if beside and len(free) >= total - placed and numbers.random() < WIDE:
            free.remove(beside[0])
            area.append(beside[0])
        chosen[placed >= infected].append(area)
    return chosen


def _neighbours(one: Zone, other: Zone) -> bool:
    return one[0] == other[0] and abs(THIRDS.index(one[1]) - THIRDS.index(other[1])) == 1


def _opacity(
    chest: Chest, area: list[Zone], numbers: Numbers, fine_low: float, fine_high: float
) -> tuple[np.ndarray, np.ndarray]:
    """A cloudy patch in the zones of one lung: (density to add, where it counts as covered), both [S, S]."""
    size = len(chest.density)
    lung = chest.left if area[0][0] == "left" else chest.right
    top, bottom, first, last = zone_box(lung, area)
    tall, broad = (bottom - top) / 2, (last - first) / 2
    down, across = np.mgrid[:size, :size].astype(np.float32) + 0.5
    y = (top + bottom) / 2 + numbers.uniform(-0.12, 0.12) * tall
    x = (first + last) / 2 + numbers.uniform(-0.3, 0.3) * broad
    radii = tall * numbers.uniform(0.9, 1.15), broad * numbers.uniform(0.7, 1.0)
    clouds = blurred(numbers.normal(0, 1, (size, size)), 0.035 * size)
    clouds /= clouds.std()
    wisps = blurred(numbers.normal(0, 1, (size, size)), 0.018 * size)
    depth = 1 - np.hypot((down - y) / radii[0], (across - x) / radii[1]) + 0.20 * clouds + 0.07 * wisps / wisps.std()
    # a cloud ends near its zones, except where the lung itself does
    third, places = tall * 2 / len(area), {name for _, name in area}
    for beyond, ends in (("upper", down - top), ("lower", bottom - down)):
        if beyond not in places:
            depth = np.minimum(depth, ends / (0.4 * third) + 0.3)
    rise = np.clip(depth / 0.65, 0, 1)
    cover = rise * rise * (3 - 2 * rise)
    patchy = blurred(numbers.normal(0, 1, (size, size)), 0.014 * size)
    fine = blurred(numbers.normal(0, 1, (size, size)), 0.0055 * size)
    texture = 1 + 0.16 * patchy / patchy.std() + 0.35 * numbers.uniform(fine_low, fine_high) * fine / fine.std()
    strength = numbers.uniform(0.14, 0.24)
    return strength * cover * texture * blurred(lung, 0.006 * size), (cover > 0.35) & (lung > 0.5)


def zone_box(lung: np.ndarray, area: Iterable[Zone]) -> tuple[float, float, float, float]:
    """(top, bottom, first column, last column) in pixels of zones of one lung, which are thirds of its height."""
    rows = np.flatnonzero((lung > 0.5).any(axis=1))
    third = (rows[-1] + 1 - rows[0]) / 3
    places = [THIRDS.index(name) for _, name in area]
    top, bottom = rows[0] + min(places) * third, rows[0] + (max(places) + 1) * third
    columns = np.flatnonzero((lung[round(top) : round(bottom)] > 0.5).any(axis=0))
    return float(top), float(bottom), float(columns[0]), float(columns[-1] + 1)


def split_patients(cases: int, seed: int) -> list[str]:
    """The split of each film: whole patients, shuffled by the seed, fill test, then validation, the rest trains."""
    patients = [3 * (number // len(FILMS)) + FILMS[number % len(FILMS)] for number in range(cases)]
    order = _numbers(seed, "split", 0).permutation(patients[-1] + 1).tolist()
    splits = {}
    filled = {"test": 0, "val": 0}
    for patient in order:
        films = patients.count(patient)
        for split, share in (("test", TEST), ("val", VALIDATION)):
            if filled[split] < share * cases:
                filled[split] += films
                splits[patient] = split
                break
    return [splits.get(patient, "train") for patient in patients]


def write_phantoms(root: Path | str, recipe: PhantomRecipe, progress: Callable[[int, int], None] | None = None) -> None:
    """Write films as plain folders: images/, masks/, reports.csv, groups.csv, splits.csv and README.md.

    The folder appears under its name when it is complete. progress: called with (films done, films in all).
    Raises DataError where `root` holds files already, StorageError where it cannot be written.
    """
    root = Path(root).absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError("phantoms are only written to a new folder", where=root, remedy="name another, or remove it")
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed, perhaps with other numbers
    report = progress or (lambda done, total: None)
    rows = []
    with ThreadPoolExecutor(2, thread_name_prefix="phantoms") as pool:
        films = pool.map(lambda number: draw_phantom(recipe.seed, number, recipe.size), range(recipe.cases))
        for done, film in enumerate(films):
            report(done, recipe.cases)
            write_bytes(partial / "images" / f"{film.name}.png", _png(film.image))
            write_bytes(partial / "masks" / f"{film.name}.png", _png(film.mask))
            rows.append((film.name, film.report, film.group))
    splits = split_patients(recipe.cases, recipe.seed)
    _write_table(partial / "reports.csv", "report", ((name, words) for name, words, _ in rows))
    _write_table(partial / "groups.csv", "group", ((name, group) for name, _, group in rows))
    _write_table(partial / "splits.csv", "split", ((row[0], split) for row, split in zip(rows, splits, strict=True)))
    write_text(partial / "README.md", README.format(cases=recipe.cases, size=recipe.size, seed=recipe.seed))
    try:
        if root.exists():
            root.rmdir()
        os.replace(partial, root)
    except OSError as error:
        raise StorageError("the folder could not be put in place", where=root, found=error.strerror) from error
    report(recipe.cases, recipe.cases)


def holds_phantoms(root: Path, recipe: PhantomRecipe) -> bool:
    """Whether `root` was written by `write_phantoms` with these numbers, by what its README says."""
    readme = root / "README.md"
    told = README.format(cases=recipe.cases, size=recipe.size, seed=recipe.seed)
    return readme.is_file() and readme.read_text(encoding="utf-8") == told


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def _write_table(path: Path, column: str, rows: Iterable[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("case", column), *rows])
    write_text(path, text.getvalue())


README = """# Generated chest films

These {cases} films are drawings, not radiographs: no patient was involved, and nothing can be learnt from them about
disease. They are for trying the library and for tests. Made by `preceptor` with size {size} and seed {seed}; the same
numbers give the same files. No rights are reserved.

- `images/`: {size} x {size} pixels, 8-bit grey. Lungs, heart, vessels, ribs, clavicles, noise, and on many films
  electrode pads, wires or a catheter. The patient's left is on the right of the image.
- `masks/`: 255 where the lung is infected, 0 elsewhere. About a tenth of the films show no infection.
- `reports.csv`: a sentence for each film in the style of the QaTa-COV19 annotations: how many infected areas, and in
  which thirds of which lung.
- `groups.csv`: the patient; one, two or three films each, with the same anatomy.
- `splits.csv`: train, val and test, by patient.

Besides infected areas each film has one to three look-alikes: opacities of the same size and brightness in other
zones, which are not in the mask. Infection has a somewhat stronger fine grain, but the strengths overlap widely. So
the image alone is hardly enough, and the report, written from the mask, carries what is missing.
"""

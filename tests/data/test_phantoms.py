"""Claims about generated chest films: pure, described by their reports, and split by patient."""

import csv
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data import phantoms as module
from preceptor.data.phantoms import ZONES, Phantom, describe, draw_phantom, split_patients, write_phantoms
from preceptor.errors import DataError
from preceptor.recipe_data import PhantomRecipe
from preceptor.text.attributes import parse_attributes

SIZE = 96


@pytest.fixture(scope="module")
def films() -> list[Phantom]:
    return [draw_phantom(0, number, SIZE) for number in range(40)]


def table(path: Path) -> dict[str, str]:
    return dict(list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:])


def test_sentences_are_those_of_the_published_annotations() -> None:
    zones = [("right", "lower"), ("left", "upper")]
    assert describe(zones, 2) == (
        "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."
    )
    assert describe([("left", "lower"), ("left", "middle")], 1) == (
        "Unilateral pulmonary infection, one infected area, middle lower left lung."
    )
    assert describe(ZONES, 6) == "Bilateral pulmonary infection, six infected areas, all left lung and all right lung."
    assert describe([], 0) == "No pulmonary infection."


def test_every_sentence_is_understood_by_the_parser() -> None:
    for count in range(7):
        for zones in combinations(ZONES, count):
            facts = parse_attributes(describe(zones, count))
            assert facts is not None
            assert {(side, third) for side, third in ZONES if facts[side[0] + third]} == set(zones)


def test_a_film_is_a_function_of_seed_number_and_size(films: list[Phantom]) -> None:
    again = draw_phantom(0, 7, SIZE)
    np.testing.assert_array_equal(again.image, films[7].image)
    np.testing.assert_array_equal(again.mask, films[7].mask)
    assert again.report == films[7].report
    assert not np.array_equal(draw_phantom(1, 7, SIZE).image, again.image)
    assert not np.array_equal(draw_phantom(-1, 7, SIZE).image, draw_phantom(1, 7, SIZE).image)
    assert len({film.image.tobytes() for film in films}) == len(films)


def test_films_are_grey_and_masks_are_zero_or_full(films: list[Phantom]) -> None:
    for film in films:
        assert film.image.dtype == film.mask.dtype == np.uint8
        assert film.image.shape == film.mask.shape == (SIZE, SIZE)
        assert set(np.unique(film.mask)) <= {0, 255}
        assert film.image.std() > 20
        assert (film.image == 255).mean() < 0.01


def test_reports_name_the_lungs_in_which_the_masks_lie(films: list[Phantom]) -> None:
    for film in films:
        facts = parse_attributes(film.report)
        assert facts is not None
        rows, columns = np.nonzero(film.mask)
        left = any(facts["l" + third] for third in ("upper", "middle", "lower"))
        right = any(facts["r" + third] for third in ("upper", "middle", "lower"))
        # the patient's left is on the right of the image
        assert left == bool((columns > SIZE / 2).any()), film.report
        assert right == bool((columns < SIZE / 2).any()), film.report
        assert bool(facts["number"]) == bool(len(rows))
        if facts["number"]:
            assert len(rows) >= 0.004 * SIZE**2
            heights = {"upper": (0.05, 0.40), "middle": (0.25, 0.62), "lower": (0.42, 0.85)}
            named = [third for third in heights if facts["l" + third] or facts["r" + third]]
            assert rows.min() / SIZE > min(heights[third][0] for third in named), film.report
            assert rows.max() / SIZE < max(heights[third][1] for third in named), film.report


def test_some_films_are_healthy_and_most_are_not(films: list[Phantom]) -> None:
    healthy = sum(film.report == "No pulmonary infection." for film in films)
    assert 0 < healthy < 12


def test_look_alikes_lie_in_other_zones_than_infections() -> None:
    numbers = np.random.default_rng(0)
    for _ in range(300):
        infected, alike = module._choose(numbers)
        zones = [zone for area in infected + alike for zone in area]
        assert len(zones) == len(set(zones))
        assert 1 <= len(alike) <= 3
        assert len(infected) <= 3


def test_look_alikes_are_as_bright_as_infections_and_only_the_report_tells_them_apart() -> None:
    chest = module.draw_chest(SIZE, np.random.default_rng(0), np.random.default_rng(1))
    added: dict[bool, list[float]] = defaultdict(list)
    for number in range(20):
        for kind in (True, False):
            numbers = np.random.default_rng(number)
            haze, inside = module._opacity(chest, [ZONES[number % 6]], numbers, *module.GRAIN[kind])
            added[kind].append(float(haze[inside].mean()))
    difference = np.mean(added[True]) - np.mean(added[False])
    assert abs(difference) < 0.2 * np.std(added[False])


def test_films_of_a_patient_show_the_same_anatomy_and_share_a_split(films: list[Phantom]) -> None:
    groups = defaultdict(list)
    for film in films:
        groups[film.group].append(film)
    assert {len(group) for group in groups.values()} >= {1, 2, 3}
    splits = split_patients(len(films), 0)
    for group in groups.values():
        assert len({splits[films.index(film)] for film in group}) == 1


@pytest.mark.parametrize("cases", [12, 40, 300])
def test_splits_have_about_their_shares_and_depend_on_the_seed(cases: int) -> None:
    splits = split_patients(cases, 0)
    assert len(splits) == cases
    shares = {split: splits.count(split) / cases for split in ("train", "val", "test")}
    assert 0.25 <= shares["test"] < 0.25 + 3 / cases
    assert 0.13 <= shares["val"] < 0.13 + 3 / cases
    assert split_patients(cases, 1) != splits


def test_the_folder_holds_what_its_readme_says(tmp_path: Path) -> None:
    root = tmp_path / "films"
    calls: list[tuple[int, int]] = []
    write_phantoms(root, PhantomRecipe(cases=8, size=48, seed=5), lambda done, total: calls.append((done, total)))
    assert calls[0] == (0, 8)
    assert calls[-1] == (8, 8)
    reports, groups, splits = (table(root / f"{name}.csv") for name in ("reports", "groups", "splits"))
    assert len(reports) == 8
    assert list(reports) == list(groups) == list(splits)
    for name, report in reports.items():
        film = draw_phantom(5, int(name.rsplit("-", 1)[1]), 48)
        assert report == film.report
        assert groups[name] == film.group
        np.testing.assert_array_equal(np.asarray(Image.open(root / "images" / f"{name}.png")), film.image)
        np.testing.assert_array_equal(np.asarray(Image.open(root / "masks" / f"{name}.png")), film.mask)
    assert "not radiographs" in (root / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"films"}


def test_an_interrupted_writing_leaves_no_folder_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = PhantomRecipe(cases=3, size=48)
    with monkeypatch.context() as patch:
        patch.setattr(module, "split_patients", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_phantoms(tmp_path / "films", recipe)
    assert not (tmp_path / "films").exists()
    write_phantoms(tmp_path / "films", recipe)
    assert len(list((tmp_path / "films" / "images").iterdir())) == 3


def test_existing_files_are_never_overwritten_and_tiny_films_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="new folder"):
        write_phantoms(tmp_path, PhantomRecipe(cases=2, size=48))
    with pytest.raises(DataError, match="more pixels"):
        write_phantoms(tmp_path / "films", PhantomRecipe(cases=2, size=16))


def test_what_a_killed_run_left_does_not_join_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".films.partial" / "images"
    left.mkdir(parents=True)
    (left / "of-another-recipe.png").write_bytes(b"")
    write_phantoms(tmp_path / "films", PhantomRecipe(cases=2, size=32))
    assert len(list((tmp_path / "films" / "images").iterdir())) == 2

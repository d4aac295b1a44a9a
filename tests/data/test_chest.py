"""Claims about the drawn chest: it has the parts of a chest where they belong."""

import numpy as np
import pytest

from preceptor.data.chest import Chest, Sheet, draw_chest, draw_devices, expose

SIZE = 96


def chest(patient: int = 0, pose: int = 100) -> Chest:
    return draw_chest(SIZE, np.random.default_rng(patient), np.random.default_rng(pose))


def level(film: Chest, across: float, down: float) -> float:
    """Mean density around a place in anatomy coordinates."""
    x, y = round((across + 1) * SIZE / 2), round((down + 1) * SIZE / 2)
    return float(film.density[y - 3 : y + 4, x - 3 : x + 4].mean())


@pytest.mark.parametrize("patient", range(6))
def test_lungs_are_dark_and_heart_spine_and_abdomen_are_bright(patient: int) -> None:
    film = chest(patient)
    lung = max(level(film, -0.45, -0.2), level(film, 0.45, -0.3))
    assert min(level(film, 0.15, 0.2), level(film, 0.0, -0.5), level(film, -0.4, 0.75)) > lung + 0.1
    assert level(film, -0.92, -0.92) < 0.1


@pytest.mark.parametrize("patient", range(6))
def test_the_heart_reaches_into_the_patients_left_lung_on_the_right_of_the_image(patient: int) -> None:
    film = chest(patient)
    assert level(film, 0.33, 0.25) > level(film, -0.33, 0.25) + 0.08
    assert film.left.sum() < film.right.sum()
    columns = np.arange(SIZE)
    assert (film.left.sum(0) @ columns) / film.left.sum() > SIZE / 2 > (film.right.sum(0) @ columns) / film.right.sum()


def test_an_exposed_film_uses_the_range_without_clipping_much() -> None:
    film = expose(chest().density, np.random.default_rng(0))
    assert film.dtype == np.uint8
    assert film.shape == (SIZE, SIZE)
    assert (film == 255).mean() < 0.01
    assert np.percentile(film, 95) - np.percentile(film, 5) > 80


def test_devices_only_add_density_and_some_films_have_none() -> None:
    added = [draw_devices(SIZE, np.random.default_rng(n), np.random.default_rng(n)) for n in range(20)]
    assert min(float(layer.min()) for layer in added) >= 0
    assert 0 < sum(float(layer.max()) == 0 for layer in added) < 15


def test_an_outline_covers_its_share_of_the_film() -> None:
    class Still:
        """A patient who stands exactly in the middle."""

        def normal(self, middle: float, width: float, shape: int | None = None) -> float | np.ndarray:
            return middle if shape is None else np.full(shape, middle)

    sheet = Sheet(64, Still())  # type: ignore[arg-type]
    half = sheet.filled([[(-1.0, -0.5), (1.0, -0.5), (1.0, 0.5), (-1.0, 0.5)]])
    assert half.mean() == pytest.approx(0.5, abs=0.01)
    assert float(sheet.across[0, 0]) == pytest.approx(-1 + 1 / 64)
    line = sheet.stroked([([(-1.0, 0.0), (1.0, 0.0)], 0.25, 0.5)])
    assert line.mean() == pytest.approx(0.0625, abs=0.006)

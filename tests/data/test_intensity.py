"""A volume has one scale, which is that of all its slices together."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.data import intensity
from preceptor.data.intensity import scale_of, volume_scale
from preceptor.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden"
SIKD = json.loads((GOLDEN / "sikd_textdiff_losses.json").read_text())
VOLUME = np.random.default_rng(0).normal(40, 300, (5, 6, 7)).astype(np.float32)


def scaled(volume, mode, clip=None):
    values = volume if clip is None else volume.clip(*clip)
    return scale_of(volume, mode, clip).apply(torch.from_numpy(values.astype(np.float32))).numpy()


@pytest.mark.parametrize(
    "case", [case for case in SIKD["cases"] if "normalised" in case["expected"]], ids=lambda case: case["name"]
)
def test_percentiles_are_those_of_sikd(case):
    arrays = np.load(GOLDEN / "sikd_textdiff_losses.npz")
    volume = arrays[case["inputs"]["volume"]["npz"]]
    expected = arrays[case["expected"]["normalised"]["npz"]]
    np.testing.assert_allclose(scaled(volume, "volume_percentile"), expected, **case["tolerance"])


def test_minimum_and_maximum_after_clipping_become_0_and_1():
    found = scaled(VOLUME, "volume_minmax", (-125.0, 275.0))
    np.testing.assert_allclose(found, (VOLUME.clip(-125, 275) + 125) / 400, atol=1e-6)
    assert (found.min(), found.max()) == (0, 1)


def test_mean_and_deviation_become_0_and_1():
    found = scaled(VOLUME, "volume_zscore")
    assert abs(found.mean()) < 1e-5
    assert abs(found.std() - 1) < 1e-5
    assert abs(found[0].mean()) > 1e-3  # of the volume, not of each slice


@pytest.mark.parametrize("mode", ["volume_minmax", "volume_zscore", "volume_percentile"])
@pytest.mark.parametrize("level", [0.0, 7.0, 0.1, -1000.0])
def test_a_constant_volume_becomes_zero(mode, level):
    assert not scaled(np.full((3, 9, 9), level, np.float32), mode).any()


def test_values_that_are_not_finite_stop():
    with pytest.raises(DataError, match=r"(?s)v\.h5.*not finite.*1 of them"):
        scale_of(np.array([0.0, np.nan]), "volume_minmax", where="v.h5")


def test_the_scale_of_a_file_is_computed_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, image=VOLUME)
    counted = []
    plain = intensity.scale_of
    monkeypatch.setattr(intensity, "scale_of", lambda *given: counted.append(1) or plain(*given))
    first = volume_scale(path, "volume_minmax")
    assert first == volume_scale(path, "volume_minmax") == scale_of(VOLUME, "volume_minmax")
    assert len(counted) == 1
    np.savez(path, image=np.concatenate([VOLUME, VOLUME * 2]))
    assert volume_scale(path, "volume_minmax").width == pytest.approx(2 * first.width)
    assert len(counted) == 2

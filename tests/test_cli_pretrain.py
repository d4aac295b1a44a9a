"""The verb pretrain-diffusion: settings from a data folder, a weights file at the end, an exit code when stopped."""

import sys

import pytest

from preceptor import cli
from preceptor.errors import Interrupted
from preceptor.segmentors.diffusion import read_diffusion


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the verb as the shell does: command(*arguments) -> (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["preceptor", "pretrain-diffusion", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_a_data_folder_becomes_a_file_of_weights_and_its_path_is_printed(small_data, tmp_path, command) -> None:
    settings = ["image_size=16", "widths=[16, 16]", "attention=[1]", "head_width=16", "groups=8", "data.channels=1"]
    settings += ["steps=2", "batch_size=2", "validation_crops=2", "samples=1", "sample_steps=1"]
    changes = [part for setting in settings for part in ("--set", setting)]
    code, out, err = command(small_data, "--shape", "tiny", "--out", tmp_path / "out", *changes)
    assert code == 0, err
    assert out.startswith(f"{tmp_path / 'out' / 'diffusion.safetensors'}: 2 steps, loss train ")
    assert "8 pictures to learn from, 2 held out" in err
    shape, _ = read_diffusion(tmp_path / "out" / "diffusion.safetensors")
    assert (shape.channels, shape.widths, shape.layers) == (1, (16, 16), 1)
    assert (tmp_path / "out" / "samples" / "step-000002.png").is_file()
    again = command(small_data, "--shape", "tiny", "--out", tmp_path / "out", *changes)
    assert again == (0, out, "")


@pytest.mark.parametrize(("raised", "expected"), [(KeyboardInterrupt(), 130), (Interrupted("out"), 143)])
def test_a_stopped_pretraining_says_how_to_go_on(raised, expected, small_data, command, monkeypatch) -> None:
    def stopped(*_):
        raise raised

    monkeypatch.setattr("preceptor.pretraining.pretrain_diffusion", stopped)
    code, _, err = command(small_data)
    assert code == expected
    assert "the same command goes on" in err


def test_what_a_user_can_mend_is_told_without_a_traceback(small_data, command) -> None:
    code, _, err = command(small_data, "--shape", "huge")
    assert code == 2
    assert "'tiny', 'small' or 'imagenet256'" in err
    assert "Traceback" not in err

"""An encoder that is published as a pickle is converted once, and is the same encoder."""

import pytest
import torch

from preceptor.errors import StorageError
from preceptor.storage import read_tensors, write_tensors
from preceptor.text.convert import convert_encoder
from preceptor.text.encoders import BertEncoder


@pytest.fixture
def pickled(tiny_bert, tmp_path):
    folder = tiny_bert(tmp_path / "pickled", "bert.")
    tensors, _ = read_tensors(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_converted_encoder_gives_the_same_features(pickled, tiny_bert, tmp_path):
    converted = convert_encoder(pickled / "pytorch_model.bin", tmp_path / "out")
    expected = BertEncoder(tiny_bert(tmp_path / "plain"), "x").encode(["upper left lung"])
    assert torch.equal(BertEncoder(converted, "x").encode(["upper left lung"]), expected)


def test_the_folder_itself_may_be_converted_in_place(pickled):
    assert convert_encoder(pickled, pickled) == pickled
    BertEncoder(pickled, "x")


def test_missing_neighbours_are_named(pickled, tmp_path):
    (pickled / "vocab.txt").unlink()
    with pytest.raises(StorageError, match=r"vocab\.txt"):
        convert_encoder(pickled, tmp_path / "out")


def test_a_file_without_bert_is_refused(pickled, tmp_path):
    write_tensors(pickled / "pytorch_model.bin", {"conv.weight": torch.zeros(2)})
    with pytest.raises(StorageError, match="no BERT"):
        convert_encoder(pickled, tmp_path / "out")

"""Any BERT becomes token features without remote code, or the user is told what to do."""

import json
import shutil

import pytest
import torch

from preceptor.errors import RecipeError, StorageError, UntrustedFileError
from preceptor.recipe_data import ReportRecipe
from preceptor.storage import read_tensors, write_tensors
from preceptor.text.encoders import BertEncoder, build_encoder, describe
from preceptor.text.hashed import HashedEncoder

TEXT = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


@pytest.fixture
def folder(tiny_bert, tmp_path):
    return tiny_bert(tmp_path / "tiny")


def build(folder, **fields):
    return build_encoder(ReportRecipe(encoder=str(folder), **{"length": 12} | fields))


def test_the_default_needs_nothing():
    encoder = build_encoder(ReportRecipe())
    assert isinstance(encoder, HashedEncoder)
    assert (encoder.length, encoder.width, encoder.limit) == (24, 128, None)


def test_features_are_the_last_hidden_state_of_padded_tokens(folder):
    from transformers import BertModel, BertTokenizer

    encoder = build(folder, length=24)
    features = encoder.encode([TEXT, "left"])
    assert (encoder.length, encoder.width, encoder.limit) == (24, 16, 40)
    assert features.shape == (2, 24, 16)
    assert features.dtype == torch.float32
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokens = BertTokenizer(vocab=str(folder / "vocab.txt"))(
        [TEXT, "left"], padding="max_length", max_length=24, return_tensors="pt"
    )
    torch.testing.assert_close(features, model(**tokens).last_hidden_state.detach())
    assert features[1, 5:].abs().min() > 0  # padding takes part


def test_long_texts_are_cut_and_counted(folder):
    encoder = build(folder, length=6)
    assert encoder.encode([TEXT]).shape == (1, 6, 16)
    assert encoder.count_tokens([TEXT, "left", ""]) == [18, 3, 2]
    assert encoder.encode([]).shape == (0, 6, 16)


def test_features_do_not_depend_on_their_company(folder):
    encoder = build(folder)
    torch.testing.assert_close(encoder.encode([TEXT, "left"])[1], encoder.encode(["left"])[0])


def test_prefixed_weights_of_a_masked_language_model_fit(tiny_bert, folder, tmp_path):
    prefixed = tiny_bert(tmp_path / "cxr", "bert.", model_type="cxr-bert", auto_map={"AutoModel": "evil.Model"})
    tensors, _ = read_tensors(prefixed / "model.safetensors")
    extra = {"cls.predictions.bias": torch.zeros(3), "cls_projection_head.dense_to_hidden.weight": torch.zeros(2, 2)}
    write_tensors(prefixed / "model.safetensors", tensors | extra)
    assert torch.equal(build(prefixed).encode([TEXT]), build(folder).encode([TEXT]))


def test_code_in_the_folder_is_never_run(tiny_bert, tmp_path):
    hostile = tiny_bert(tmp_path / "hostile", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (hostile / "evil.py").write_text("raise SystemExit('code of the model ran')\n")
    build(hostile).encode([TEXT])


def test_identity_follows_content_not_place(tiny_bert, folder, tmp_path):
    moved = tmp_path / "elsewhere" / "tiny"
    shutil.copytree(folder, moved)
    assert build(moved).identity == build(folder).identity
    assert build(folder, length=13).identity != build(folder).identity
    tensors, _ = read_tensors(moved / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] += 1
    write_tensors(moved / "model.safetensors", tensors)
    assert build(moved).identity != build(folder).identity


def test_old_names_of_layer_norms_fit(folder):
    before = build(folder).encode([TEXT])
    tensors, _ = read_tensors(folder / "model.safetensors")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in tensors.items()
    }
    write_tensors(folder / "model.safetensors", old)
    assert torch.equal(build(folder).encode([TEXT]), before)


def test_weights_may_come_in_several_files(folder):
    before = build(folder).encode([TEXT])
    tensors, _ = read_tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for number, keys in enumerate((list(tensors)[::2], list(tensors)[1::2])):
        write_tensors(folder / f"model-{number}-of-2.safetensors", {key: tensors[key] for key in keys})
    assert torch.equal(build(folder).encode([TEXT]), before)


def test_pickled_weights_are_refused_with_the_way_out(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UntrustedFileError, match=r"import-weights pytorch_model\.bin --architecture text-encoder"):
        build(folder)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_incomplete_folders_are_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(StorageError, match=f"{name.partition('.')[2]}"):
        build(folder)


def test_weights_that_do_not_fit_are_listed(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(StorageError, match=r"(?s)16 tensors missing.*encoder\.layer\.2"):
        build(folder)


def test_other_families_are_refused(folder):
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(RecipeError, match="model_type gpt2"):
        build(folder)


@pytest.mark.parametrize("length", [1, 41])
def test_impossible_lengths_are_refused(folder, length):
    with pytest.raises(RecipeError, match="2 to 40"):
        build(folder, length=length)


def test_a_vocabulary_of_another_model_is_refused(folder):
    with open(folder / "vocab.txt", "a") as file:
        file.write("pneumonia\n")
    with pytest.raises(StorageError, match="larger than the encoder's table"):
        build(folder)


@pytest.mark.parametrize("revision", [None, "main"])
def test_hub_models_need_a_fixed_revision(revision):
    with pytest.raises(RecipeError, match=r"fixed revision(?s:.*)/commits/main"):
        build_encoder(ReportRecipe(encoder="some/bert", revision=revision))


def test_without_network_the_message_names_the_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StorageError, match=r"cannot be downloaded(?s:.*)hashed"):
        build_encoder(ReportRecipe(encoder="microsoft/BiomedVLP-CXR-BERT-specialized"))


def test_a_cached_download_is_used_without_network(monkeypatch, tiny_bert, tmp_path):
    tiny_bert(tmp_path / "models--some--bert" / "snapshots" / "0123abc")
    reference = tmp_path / "models--some--bert" / "refs" / "v1"
    reference.parent.mkdir()
    reference.write_text("0123abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = build_encoder(ReportRecipe(encoder="some/bert", revision="v1", length=12))
    assert encoder.identity.startswith("some/bert@v1/")


def test_neither_name_nor_folder_nor_id():
    with pytest.raises(RecipeError, match="neither a known encoder"):
        build_encoder(ReportRecipe(encoder="no such thing"))


def test_every_known_encoder_is_described():
    assert [name for name, _ in describe()][:2] == ["hashed", "microsoft/BiomedVLP-CXR-BERT-specialized"]


def test_the_encoder_is_frozen(folder):
    encoder = build(folder)
    assert isinstance(encoder, BertEncoder)
    assert not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())

"""The image encoder equals transformers' ConvNeXt and loads its weights; what cannot be loaded is said."""

import pytest
import torch

from preceptor.errors import RecipeError, StorageError, UntrustedFileError, UserError
from preceptor.segmentors import zoo
from preceptor.segmentors.convnext import ImageEncoder
from preceptor.storage import read_tensors, write_tensors

WIDTHS, DEPTHS = (8, 16, 24, 32), (1, 2, 1, 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small ConvNeXt of transformers with weights that all matter, and the folder it was saved to."""
    from transformers.models.convnext.configuration_convnext import ConvNextConfig
    from transformers.models.convnext.modeling_convnext import ConvNextForImageClassification

    torch.manual_seed(0)
    model = ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=list(WIDTHS), depths=list(DEPTHS), num_labels=5)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("convnext")
    model.config.save_pretrained(folder)
    write_tensors(folder / "model.safetensors", model.state_dict())
    return model, folder


def test_stage_maps_equal_those_of_transformers(published):
    model, folder = published
    encoder = ImageEncoder(3, WIDTHS, DEPTHS, pretrained=str(folder)).eval()
    image = torch.randn(2, 3, 64, 96)
    theirs = model(image, output_hidden_states=True).hidden_states[1:]
    ours = encoder(image)
    assert [tuple(feature.shape) for feature in ours] == [tuple(feature.shape) for feature in theirs]
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)


def test_one_channel_takes_pretrained_weights_as_if_the_image_were_repeated(published):
    _, folder = published
    grey = ImageEncoder(1, WIDTHS, DEPTHS, pretrained=str(folder)).eval()
    colour = ImageEncoder(3, WIDTHS, DEPTHS, pretrained=str(folder)).eval()
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(grey(image)[3], colour(image.expand(-1, 3, -1, -1))[3], rtol=1e-4, atol=1e-4)


def test_segmentor_starts_from_pretrained_weights(published):
    model, folder = published
    network = zoo.build("unguided", in_channels=3, classes=2, widths=WIDTHS, depths=DEPTHS, pretrained=str(folder))
    assert torch.equal(
        network.encoder.stem["patch_embeddings"].weight, model.convnext.embeddings.patch_embeddings.weight
    )


def test_pretrained_weights_of_other_dimensions_are_refused(published):
    with pytest.raises(RecipeError, match=r"other dimensions[\s\S]*found: +widths \[8, 16, 24, 32\]"):
        zoo.build("unguided", in_channels=3, classes=2, size="tiny", pretrained=str(published[1]))
    with pytest.raises(RecipeError, match=r"another number of channels[\s\S]*data.channels"):
        ImageEncoder(4, WIDTHS, DEPTHS, pretrained=str(published[1]))


def test_weights_that_cannot_be_had_offline_are_named_with_a_remedy():
    with pytest.raises(
        UserError, match=r"nobody/no-such-convnext@1234567: the pretrained weights cannot be had[\s\S]*remedy"
    ):
        ImageEncoder(3, WIDTHS, DEPTHS, pretrained="nobody/no-such-convnext@1234567")


def test_folder_without_weights_or_with_others_is_refused(published, tmp_path):
    _, folder = published
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RecipeError, match="no ConvNeXt weights"):
        ImageEncoder(3, WIDTHS, DEPTHS, pretrained=str(tmp_path))
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(StorageError, match="does not exist"):
        ImageEncoder(3, WIDTHS, DEPTHS, pretrained=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UntrustedFileError, match="pickled"):
        ImageEncoder(3, WIDTHS, DEPTHS, pretrained=str(tmp_path))
    tensors, _ = read_tensors(folder / "model.safetensors")
    tensors.pop("convnext.encoder.stages.1.layers.1.dwconv.bias")
    write_tensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(StorageError, match=r"not complete[\s\S]*missing: stages.1.layers.1.dwconv.bias"):
        ImageEncoder(3, WIDTHS, DEPTHS, pretrained=str(tmp_path))


def test_stochastic_depth_acts_in_training_only_and_keeps_the_mean():
    torch.manual_seed(0)
    encoder = ImageEncoder(1, (4, 4, 4, 4), (2, 1, 1, 1), layer_scale=1.0, drop_path=0.5)
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert not torch.equal(encoder(image)[3], encoder(image)[3])
        last = encoder.stages[3].layers[0]
        current = torch.randn(1, 4, 2, 2)
        changes = (last(current.expand(4000, -1, -1, -1)) - current).mean(0)
        encoder.eval()
        assert torch.equal(encoder(image)[3], encoder(image)[3])
        torch.testing.assert_close(changes, (last(current) - current)[0], rtol=0.1, atol=1e-3)

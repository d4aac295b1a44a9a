"""The image encoder: ConvNeXt (Liu et al. 2022) through transformers' classes, its four stage maps used raw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from preceptor.errors import RecipeError, StorageError, UserError
from preceptor.segmentors.base import Size
from preceptor.storage import read_json, read_tensors

STRIDES = (4, 8, 16, 32)

DIAL: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((32, 64, 128, 256), (1, 1, 3, 1)),
    "small": ((64, 128, 256, 512), (2, 2, 4, 2)),
    "base": ((96, 192, 384, 768), (3, 3, 9, 3)),
}
"""Size to (widths, depths) of the four stages; base is ConvNeXt-T, as in TextFreeKD and LanGuide."""


def dimensions(
    size: Size, widths: Sequence[int] | None, depths: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(widths, depths) of the dial, or as given. Raises RecipeError unless both are four positive whole numbers."""
    if size not in DIAL:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(DIAL))
    chosen = (tuple(widths or DIAL[size][0]), tuple(depths or DIAL[size][1]))
    for name, values in zip(("widths", "depths"), chosen, strict=True):
        if len(values) != 4 or not all(isinstance(value, int) and value > 0 for value in values):
            raise RecipeError("four positive whole numbers are needed", where=name, found=list(values))
    return chosen


class ImageEncoder(nn.Module):
    """A 4x4 patch stem and four stages of ConvNeXt blocks, without the final norm and pooling.

    layer_scale: initial value of each block's scale. drop_path: largest rate of stochastic depth.
    pretrained: Hugging Face id (`owner/name` or `owner/name@revision`) or local folder; None starts from scratch.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        layer_scale: float = 1e-6,
        drop_path: float = 0.0,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        from transformers.models.convnext.configuration_convnext import ConvNextConfig
        from transformers.models.convnext.modeling_convnext import ConvNextModel

        config = ConvNextConfig(
            num_channels=in_channels,
            hidden_sizes=list(widths),
            depths=list(depths),
            layer_scale_init_value=layer_scale,
            drop_path_rate=drop_path,
        )
        model = ConvNextModel(config)
        self.stem = model.embeddings
        self.stages = model.encoder.stages
        if pretrained is not None:
            self.load_state_dict(pretrained_state(pretrained, in_channels, widths, depths))

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: [B, in_channels, H, W]. Returns four maps [B, widths[k], H / s, W / s], s = 4, 8, 16, 32."""
        maps = []
        current = self.stem(image)
        for stage in self.stages:
            current = stage(current)
            maps.append(current)
        return maps


def pretrained_state(
    source: str, in_channels: int, widths: tuple[int, ...], depths: tuple[int, ...]
) -> dict[str, Tensor]:
    """The encoder's state from Hugging Face ConvNeXt weights (`config.json` and `model.safetensors`).

    For one input channel the stem's kernels are summed over their channels: exactly the answer to the image repeated.
    Raises UserError where the weights cannot be had, RecipeError where they have other dimensions.
    """
    config = read_json(_file(source, "config.json"))
    if config.get("model_type") != "convnext":
        raise RecipeError("these are no ConvNeXt weights", where=source, found=config.get("model_type"))
    found = tuple(config.get("hidden_sizes", ())), tuple(config.get("depths", ()))
    if found != (widths, depths):
        raise RecipeError(
            "the pretrained encoder has other dimensions than the network",
            where=source,
            found=f"widths {list(found[0])}, depths {list(found[1])}",
            expected=f"widths {list(widths)}, depths {list(depths)}",
            remedy="choose the size that fits, or set the options `widths` and `depths`",
        )
    tensors, _ = read_tensors(_file(source, "model.safetensors"))
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("convnext.")
        if name.startswith("embeddings."):
            state["stem." + name.removeprefix("embeddings.")] = tensor
        elif name.startswith("encoder.stages."):
            state[name.removeprefix("encoder.")] = tensor
    stem = state.get("stem.patch_embeddings.weight")
    if stem is None:
        raise StorageError("the weights file holds no ConvNeXt stem", where=source, found=f"{len(tensors)} tensors")
    if stem.shape[1] != in_channels:
        if in_channels != 1:
            raise RecipeError(
                "the pretrained encoder takes another number of channels",
                where=source,
                found=stem.shape[1],
                expected=f"{in_channels}, or 1",
                remedy="set `data.channels` to what the weights take, or to 1",
            )
        state["stem.patch_embeddings.weight"] = stem.sum(dim=1, keepdim=True)
    return state


def _file(source: str, name: str) -> Path:
    """A file of a local folder, or of the Hugging Face hub (from its cache when there is no network)."""
    folder = Path(source)
    if folder.is_dir():
        return folder / name
    from transformers.utils.hub import cached_file

    repository, _, revision = source.partition("@")
    settings: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        path = cached_file(repository, name, **settings)
    except (OSError, ValueError) as error:
        path, reason = None, str(error).strip().splitlines()[0]
    else:
        reason = "no such file"
    if path is None:
        raise UserError(
            "the pretrained weights cannot be had",
            where=source,
            found=f"{name}: {reason}",
            expected="a local folder or a Hugging Face id, with config.json and model.safetensors",
            remedy="check the name and the network, name a folder that holds both files, or leave `pretrained` out",
        )
    return Path(path)

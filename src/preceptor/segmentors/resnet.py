"""ResNet 18, 34 and 50 as segmentors use them: two stems, strides and dilations by stage, every stage returned.

Sources: He et al. 2016 (arXiv 1512.03385), the deep stem "v1c" of He et al. 2019 (arXiv 1812.01187), dilation in place
of stride with the first block contracted (specs of the segmentors, section 2). Parameters are called as in OpenMMLab's
v1c and torchvision's plain checkpoints, which therefore load as they are.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Size, Tap
from preceptor.segmentors.convolution import Norm, check_norm, kaiming, normalisation
from preceptor.segmentors.pretrained import fold_channels, start_from
from preceptor.storage import read_tensors

Stem = Literal["v1c", "plain"]

WIDTHS: dict[str, int] = {"tiny": 16, "small": 32, "base": 64}
"""Channels of the first stage, by size; "base" is the published one."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first is strided and dilated. Returns the sum before its ReLU."""

    expansion = 1

    def __init__(self, in_width: int, width: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = normalisation(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = normalisation(norm, width)
        self.downsample = _shortcut(in_width, width, stride, norm)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [B, in_width, H, W]. Returns [B, width, H / stride, W / stride]."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        return self.bn2(self.conv2(inner)) + self.downsample(maps)


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided, dilated), 1x1 to four times the width, beside a shortcut. Returns the sum before its ReLU."""

    expansion = 4

    def __init__(self, in_width: int, width: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 1, bias=False)
        self.bn1 = normalisation(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = normalisation(norm, width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = normalisation(norm, 4 * width)
        self.downsample = _shortcut(in_width, 4 * width, stride, norm)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [B, in_width, H, W]. Returns [B, 4 * width, H / stride, W / stride]."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return self.bn3(self.conv3(inner)) + self.downsample(maps)


def _shortcut(in_width: int, width: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1 and in_width == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), normalisation(norm, width))


Block = type[BasicBlock] | type[Bottleneck]

DEPTHS: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
"""Depth to (block, number of blocks by stage)."""


class Stages(NamedTuple):
    """What a ResNet returns: the stem's map of stride 2, and each stage's map after and before its last ReLU."""

    stem: Tensor
    maps: list[Tensor]
    before: list[Tensor]

    def features(self) -> dict[str, Tensor]:
        """By the names of `ResNet.taps`."""
        features = {"stem": self.stem}
        features |= {f"layer{number}": found for number, found in enumerate(self.maps, 1)}
        features |= {f"layer{number}_preact": found for number, found in enumerate(self.before, 1)}
        return features


class ResNet(nn.Module):
    """depth: 18, 34 or 50. width: channels of the first stage (64 as published).

    stem: "v1c" (three 3x3 convolutions) or "plain" (one 7x7); both are followed by a max-pool to stride 4.
    strides, dilations: by stage. contract: the first block of a dilated stage has half the dilation.
    norm: batch, or instance without parameters. pretrained: a safetensors file of such a ResNet, with or without the
    prefix "backbone."; a classifier `fc` in it is left out, and a stem for colour is summed for one channel.
    Starts from Kaiming's initialisation, with the last norm of each block at 0 (specs, section 2).
    widths, strides_out: channels and stride of the four maps. taps: stem, layer1..4, layer1_preact..layer4_preact.
    Raises RecipeError for impossible options, StorageError for weights of another network.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        depth: int = 18,
        width: int = 64,
        stem: Stem = "v1c",
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        contract: bool = False,
        norm: Norm = "batch",
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        _check(depth, width, stem, norm)
        self.first = "stem.0" if stem == "v1c" else "conv1"
        if stem == "v1c":
            self.stem = _deep_stem(in_channels, width, norm)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = normalisation(norm, width)
        block, counts = DEPTHS[depth]
        self.widths = tuple(width * 2**stage * block.expansion for stage in range(4))
        self.strides_out = tuple(_product(strides[: stage + 1], 4) for stage in range(4))
        befores = (width, *self.widths[:3])
        for stage, before in enumerate(befores):
            layer = _stage(
                block, counts[stage], before, width * 2**stage, strides[stage], dilations[stage], contract, norm
            )
            self.add_module(f"layer{stage + 1}", layer)
        named = list(zip(self.widths, self.strides_out, strict=True))
        self.taps = (
            Tap("stem", width, 2, "stem"),
            *(Tap(f"layer{n}", channels, stride, "encoder") for n, (channels, stride) in enumerate(named, 1)),
            *(Tap(f"layer{n}_preact", channels, stride, "preact") for n, (channels, stride) in enumerate(named, 1)),
        )
        self._initialise()
        if pretrained is not None:
            start_from(self, self._published(pretrained, in_channels), pretrained)

    def _initialise(self) -> None:
        self.apply(kaiming)
        for block in self.modules():
            if isinstance(block, BasicBlock | Bottleneck):
                last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
                if isinstance(last, nn.BatchNorm2d):
                    nn.init.zeros_(last.weight)

    def _published(self, source: str, in_channels: int) -> dict[str, Tensor]:
        tensors, _ = read_tensors(source)
        state = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
        state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
        first = f"{self.first}.weight"
        if first in state:
            state[first] = fold_channels(state[first], in_channels, source)
        return state

    def forward(self, image: Tensor) -> Stages:
        """image: [B, in_channels, H, W]."""
        stem = functional.relu(self.bn1(self.conv1(image))) if self.first == "conv1" else self.stem(image)
        current = functional.max_pool2d(stem, kernel_size=3, stride=2, padding=1)
        maps, before = [], []
        for number in (1, 2, 3, 4):
            for block in self.get_submodule(f"layer{number}").children():
                summed = block(current)
                current = functional.relu(summed)
            maps.append(current)
            before.append(summed)
        return Stages(stem, maps, before)


def _deep_stem(in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    half = width // 2
    layers: list[nn.Module] = []
    for before, after, stride in ((in_channels, half, 2), (half, half, 1), (half, width, 1)):
        convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        layers += [convolution, normalisation(norm, after), nn.ReLU()]
    return nn.Sequential(*layers)


def _stage(
    block: Block, count: int, before: int, width: int, stride: int, dilation: int, contract: bool, norm: Norm
) -> nn.Sequential:
    first = dilation // 2 if contract and dilation > 1 else dilation
    blocks = [block(before, width, stride, first, norm)]
    blocks += [block(width * block.expansion, width, 1, dilation, norm) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def _product(factors: Sequence[int], start: int) -> int:
    for factor in factors:
        start *= factor
    return start


def first_width(size: Size, width: int | None) -> int:
    """Channels of the first stage: `width`, or those of the size. Raises RecipeError for an unknown size."""
    if size not in WIDTHS:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(WIDTHS))
    return WIDTHS[size] if width is None else width


def _check(depth: int, width: int, stem: str, norm: str) -> None:
    check_norm(norm)
    if depth not in DEPTHS:
        raise RecipeError("there is no such ResNet", where="depth", found=depth, expected=", ".join(map(str, DEPTHS)))
    if stem not in get_args(Stem):
        raise RecipeError("there is no such stem", where="stem", found=stem, expected=", ".join(get_args(Stem)))
    if width < 2 or width % 2:
        raise RecipeError("the first stage needs an even number of channels", where="width", found=width)

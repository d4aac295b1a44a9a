"""Any two-dimensional segmentation network of MONAI, by the name of its class."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from preceptor.errors import RecipeError
from preceptor.extras import require_extra
from preceptor.segmentors.base import Size, check_classes
from preceptor.segmentors.wrapped import Wrapped

CHANNELS: dict[str, tuple[int, ...]] = {
    "tiny": (16, 32, 64, 128),
    "small": (32, 64, 128, 256),
    "base": (64, 128, 256, 512, 1024),
}
"""Size to the widths of the levels, for networks that take `channels`; base is the U-Net of the literature."""

_OURS = ("spatial_dims", "in_channels", "out_channels")


def monai_network(
    in_channels: int = 1,
    classes: int = 2,
    size: Size = "base",
    *,
    network: str = "UNet",
    arguments: Mapping[str, Any] | None = None,
    taps: Mapping[str, Any] | None = None,
    divisor: int | None = None,
    example: Sequence[int] | None = None,
) -> Wrapped:
    """A network of `monai.networks.nets` as a segmentor: UNet, AttentionUnet, BasicUNetPlusPlus, SegResNet and so on.

    network: the name of its class. arguments: its keyword arguments; spatial_dims, in_channels and out_channels are
    given by us. size: `channels` and `strides` of a network that needs them, where `arguments` has neither; the
    widths of other networks are theirs to name, and size stays "base". taps: as in `Wrapped`, name to path of a
    submodule or [path, group]. divisor, example: as in `Wrapped`.
    Raises RecipeError for unknown names and arguments and for networks that do not segment images, UserError where
    MONAI is missing.
    """
    check_classes(in_channels, classes)
    kind = _class(network)
    parameters = inspect.signature(kind).parameters
    arguments = dict(arguments or {})
    _check(network, arguments, parameters)
    given = {"spatial_dims": 2, "in_channels": in_channels, "out_channels": classes}
    chosen = {name: value for name, value in given.items() if name in parameters} | arguments
    if "channels" in parameters and "channels" not in arguments and "strides" not in arguments:
        chosen |= _levels(network, size, parameters)
    elif size != "base" and "channels" not in arguments:
        raise RecipeError(
            f"MONAI's {network} has no dial of sizes",
            where="size",
            found=size,
            expected="base",
            remedy=f"name its widths under options.arguments: {', '.join(_free(parameters))}",
        )
    try:
        module = kind(**chosen)
    except Exception as error:
        raise RecipeError(
            f"MONAI's {network} refuses its arguments",
            where="options.arguments",
            found=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            remedy=f"its arguments are {', '.join(_free(parameters))}",
        ) from error
    return Wrapped(module, in_channels=in_channels, classes=classes, taps=taps, divisor=divisor, example=example)


def _class(network: str) -> type[nn.Module]:
    """The class of `monai.networks.nets` of this name; nothing else is reachable."""
    require_extra("monai", "monai", "the segmentor monai")
    from monai.networks import nets

    known = {name: value for name, value in vars(nets).items() if _segments(value)}
    if network not in known:
        folded = {name.lower(): name for name, value in known.items() if name == value.__name__}
        near = difflib.get_close_matches(network.lower(), folded, n=1, cutoff=0.5)
        raise RecipeError(
            "MONAI has no such segmentation network",
            where="options.network",
            found=network,
            expected="the name of a class of monai.networks.nets that takes spatial_dims, in_channels and out_channels",
            remedy=f"did you mean {folded[near[0]]}?" if near else f"known are: {', '.join(sorted(folded.values()))}",
        )
    return known[network]


def _segments(value: Any) -> bool:
    """Whether it is a network whose arguments are those of segmentation."""
    if not (inspect.isclass(value) and issubclass(value, nn.Module)):
        return False
    return {"spatial_dims", "in_channels", "out_channels"} <= set(inspect.signature(value).parameters)


def _free(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    return [name for name in parameters if name not in _OURS]


def _check(network: str, arguments: dict[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    for name in arguments:
        if name in _OURS:
            raise RecipeError(
                "this argument is given by the recipe",
                where=f"options.arguments.{name}",
                remedy="leave it out: images are of two dimensions, channels and classes are those of the data",
            )
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1, cutoff=0.5)
            raise RecipeError(
                f"MONAI's {network} has no such argument",
                where="options.arguments",
                found=name,
                expected=f"one of {', '.join(_free(parameters))}",
                remedy=f"did you mean {near[0]}?" if near else "",
            )
        if "pretrained" in name and arguments[name]:
            raise RecipeError(
                "MONAI's own pretrained weights are downloads that are not checked here",
                where=f"options.arguments.{name}",
                found=arguments[name],
                expected="false",
            )


def _levels(network: str, size: Size, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    if size not in CHANNELS:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(CHANNELS))
    levels: dict[str, Any] = {"channels": CHANNELS[size]}
    if "strides" in parameters:
        levels["strides"] = (2,) * (len(CHANNELS[size]) - 1)
    return levels

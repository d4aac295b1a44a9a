"""What a network answers to an image of zeros: the channels and strides of its logits, side heads and taps."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Group, Tap
from preceptor.segmentors.watched import run_watched

LARGEST_DIVISOR = 32


@dataclass(frozen=True)
class Seen:
    """taps: in the order of `Segmentor.taps`, "logits" last where there is one. side_heads: of training mode.

    tokens: names of taps that answer [B, N, C]. overwritten: names of taps that a later layer changes in place.
    """

    taps: tuple[Tap, ...]
    side_heads: int
    tokens: frozenset[str]
    overwritten: frozenset[str]


def tap_places(module: nn.Module, taps: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, Group]]:
    """Name to (path of a submodule, group). Raises RecipeError for a path that leads nowhere or an unknown group."""
    known = dict(module.named_modules())
    groups = [group for group in get_args(Group) if group != "logits"]
    places: dict[str, tuple[str, Group]] = {}
    for name, place in taps.items():
        path, group = (place, "decoder") if isinstance(place, str) else (*place, "decoder")[:2]
        if not name or name == "logits" or "." in name:
            raise RecipeError("a tap cannot have this name", where="taps", found=name, expected="letters, no full stop")
        if group not in groups:
            raise RecipeError(
                "there is no such group of taps", where=f"tap {name}", found=group, expected=f"one of {groups}"
            )
        if path not in known or not path:
            near = difflib.get_close_matches(path, known, n=3, cutoff=0.4)
            raise RecipeError(
                f"{type(module).__name__} has no such submodule",
                where=f"tap {name}",
                found=path,
                remedy=f"nearest are: {', '.join(near)}" if near else "name one of these",
                offenders=() if near else [known_path for known_path in known if known_path],
            )
        places[name] = (path, cast(Group, group))
    return places


def dry_run(
    module: nn.Module, in_channels: int, classes: int, sides: tuple[int, int], places: Mapping[str, tuple[str, Group]]
) -> Seen:
    """Run the module on zeros [B, in_channels, *sides], without a trace in it, and see what its answers are.

    Raises RecipeError where it cannot be run, or answers other than logits, or a tap other than a map.
    """
    paths = {name: path for name, (path, _) in places.items()}
    name = type(module).__name__
    with _untouched(module, training=True):
        side_heads = split_output(_answer(module, in_channels, sides, batch=2)[0], name)[1]
    with _untouched(module, training=False):
        answer, found = _answer(module, in_channels, sides, batch=1, paths=paths)
        overwritten = {tap for tap, (feature, version) in found.items() if _version(feature) != version}
    logits, _ = split_output(answer, name)
    stride = _checked_logits(logits, classes, sides, name)
    taps, tokens = [], set()
    for tap, (path, group) in places.items():
        if tap not in found:
            raise RecipeError("the submodule takes no part in the forward pass", where=f"tap {tap}", found=path)
        feature = found[tap][0]
        taps.append(Tap(tap, *_map_of(feature, sides, f"tap {tap}", path), group))
        if feature.ndim == 3:
            tokens.add(tap)
    early = sorted((tap for tap in taps if tap.group != "decoder"), key=lambda tap: tap.stride)
    late = sorted((tap for tap in taps if tap.group == "decoder"), key=lambda tap: -tap.stride)
    last = [Tap("logits", logits.shape[1], stride, "logits")] if stride > 1 else []
    return Seen((*early, *late, *last), len(side_heads), frozenset(tokens), frozenset(overwritten))


def find_divisor(module: nn.Module, in_channels: int, sides: tuple[int, int]) -> int:
    """The least power of two, up to 32, whose multiples the network takes with logits of the right size.

    sides: a size that it takes; tried are those a divisor below and above. Where it takes none of them, what both
    sides are multiples of.
    """
    with _untouched(module, training=False):
        stride = _stride(split_output(_answer(module, in_channels, sides, batch=1)[0])[0].shape[2:], sides)
        for power in range(LARGEST_DIVISOR.bit_length()):
            tried = (sides[0] - (1 << power), sides[1] + (1 << power))
            try:
                logits, _ = split_output(_answer(module, in_channels, tried, batch=1)[0])
            except RecipeError:
                continue
            if tuple(logits.shape[2:]) == grid(tried, stride or 1):
                return 1 << power
    return math.gcd(*sides)


def split_output(answer: Any, name: str = "the network") -> tuple[Tensor, tuple[Tensor, ...]]:
    """(logits, logits of side heads) of what a module returns; see `Wrapped`."""
    if isinstance(answer, Mapping):
        main = answer.get("logits", answer.get("out"))
        parts = [main] if answer.get("aux") is None else [main, answer["aux"]]
    else:
        parts = list(answer) if isinstance(answer, tuple | list) else [answer]
    parts = [parts[0] if parts else None, *(part for part in parts[1:] if part is not None)]
    wrong = [part for part in parts if not isinstance(part, Tensor) or part.ndim != 4]
    if wrong:
        raise RecipeError(
            f"{name} does not answer with logits",
            found=_told(wrong[0]),
            expected="[B, classes, h, w], or a tuple of such: the logits first, then those of side heads",
            remedy="wrap it in a module whose forward returns them",
        )
    return parts[0], tuple(parts[1:])


def tokens_to_map(tokens: Tensor, sides: Sequence[int], stride: int) -> Tensor:
    """[B, N, C], row by row, as [B, C, h, w] [h, w] as in `grid`."""
    return tokens.transpose(1, 2).unflatten(2, grid(sides, stride))


def grid(sides: Sequence[int], stride: int) -> tuple[int, int]:
    """The image's sides over the stride, rounded up."""
    return -(-sides[0] // stride), -(-sides[1] // stride)


def _answer(
    module: nn.Module,
    in_channels: int,
    sides: tuple[int, int],
    *,
    batch: int,
    paths: Mapping[str, str] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """What the module answers to zeros, and for each tap (its answer, how often that had been written to)."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    image = torch.zeros(batch, in_channels, *sides, device=like.device, dtype=like.dtype)
    try:
        return run_watched(module, image, paths or {}, lambda _, answer: (answer, _version(answer)))
    except Exception as error:
        raise RecipeError(
            f"{type(module).__name__} cannot be run on an image of zeros",
            found=f"{tuple(image.shape)}: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            remedy="check in_channels; name the divisor of its sides, or as example a size that it takes",
        ) from error


@contextmanager
def _untouched(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Modes, buffers and random numbers are afterwards as before; within, no gradients."""
    modes = {part: part.training for part in module.modules()}
    buffers = [
        (part, name, buffer, buffer.clone()) for part in modes for name, buffer in part.named_buffers(recurse=False)
    ]
    devices = {p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(devices)), torch.inference_mode(False), torch.no_grad():
            module.train(training)
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        with torch.no_grad():
            for part, name, buffer, before in buffers:
                setattr(part, name, buffer.copy_(before))


def _checked_logits(logits: Tensor, classes: int, sides: tuple[int, int], name: str) -> int:
    """The stride of the logits."""
    channels, stride = logits.shape[1], _stride(logits.shape[2:], sides)
    binary = channels == 1 and classes == 2
    if stride is None or (channels != classes and not binary):
        raise RecipeError(
            f"{name} does not answer with logits of this problem",
            found=f"{list(logits.shape)} for an image of {sides[0]} x {sides[1]}",
            expected=f"[B, {classes}, {sides[0]}, {sides[1]}], or the same fraction of both sides",
            remedy="make its last layer give one channel a class, the background among them",
        )
    return stride


def _map_of(feature: Any, sides: tuple[int, int], where: str, path: str) -> tuple[int, int]:
    """(channels, stride) of a tap. Raises RecipeError unless it is a map or tokens of one."""
    stride, channels = None, 0
    if isinstance(feature, Tensor) and feature.ndim == 4:
        stride, channels = _stride(feature.shape[2:], sides), feature.shape[1]
    elif isinstance(feature, Tensor) and feature.ndim == 3:
        exact = [divisor for divisor in range(1, min(sides) + 1) if not any(side % divisor for side in sides)]
        fitting = [divisor for divisor in exact if math.prod(grid(sides, divisor)) == feature.shape[1]]
        stride, channels = (fitting[0] if fitting else None), feature.shape[2]
    if stride is None:
        raise RecipeError(
            "the submodule's answer is no map of the image",
            where=where,
            found=f"{path}: {_told(feature)} for an image of {sides[0]} x {sides[1]}",
            expected="[B, C, H / stride, W / stride], or tokens [B, N, C] with N = H / stride x W / stride",
            remedy="tap a submodule before or after it; tokens must come without a class token",
        )
    return channels, stride


def _stride(size: Sequence[int], sides: Sequence[int]) -> int | None:
    """The whole number by which both sides are divided, rounding up; None where there is none."""
    if min(size) < 1:
        return None
    stride = round(sides[0] / size[0])
    return stride if stride > 0 and grid(sides, stride) == tuple(size) else None


def _version(answer: Any) -> int:
    return answer._version if isinstance(answer, Tensor) else 0


def _told(answer: Any) -> str:
    return f"a tensor {list(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"

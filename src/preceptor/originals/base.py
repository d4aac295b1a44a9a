"""What the importer of published checkpoints has to know about one published network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Original:
    """A published network: how its checkpoint is recognised, and how its tensors are called here.

    segmentor: the name in `segmentors.zoo`, unless `arguments` gives another `name`.
    line: what it is, in one line without a full stop.
    prefixes: under which a checkpoint may hold it, most telling first, "" last.
    telling: a key, without prefix, that every checkpoint of it has; lacks: keys that none has, which tell it from a
    relative. side_heads: beginnings of the keys of its auxiliary heads, which are left out unless they are asked for.
    rename: the state without prefix -> (tensors in our names, keys that are not needed).
    arguments: the tensors in OUR names -> size, in_channels, classes, options and, for guided networks, condition, as
    `zoo.build` takes them. A KeyError of either says that the checkpoint is not whole.
    stems: OUR names of the convolutions that may read the image; they are summed where one channel is asked for.
    in_channels: what the original is given where that differs from its stems (it repeats the grey image).
    beside: options that name files which are no part of a checkpoint, with what each is.
    notes: facts for the card, JSON-like: `preprocessing` as the original does it, `transposed` where its weights
    expect transposed images, `blue_first` where they expect colours in the order blue, green, red, `labels` by name
    where they are known, `reads`: a sentence on what it is shown besides the image, `needs`: the privilege where that
    is not the condition's.
    """

    segmentor: str
    line: str
    prefixes: tuple[str, ...]
    telling: str
    rename: Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], list[str]]]
    arguments: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    lacks: tuple[str, ...] = ()
    side_heads: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()
    in_channels: int | None = None
    beside: Mapping[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def part(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """This network's part of a checkpoint, prefix removed; None where the checkpoint does not hold it."""
        for prefix in self.prefixes:
            if prefix + self.telling in state and not any(prefix + key in state for key in self.lacks):
                return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        return None

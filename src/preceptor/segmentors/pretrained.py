"""Starting a network, or a part of it, from weights that were published for other input."""

from collections.abc import Mapping

from torch import Tensor, nn

from preceptor.errors import RecipeError, StorageError


def fold_channels(stem: Tensor, in_channels: int, where: object) -> Tensor:
    """The kernels [O, I, h, w] of a convolution that reads the image, for images of `in_channels`.

    For one channel they are summed over I: exactly the answer to the image repeated I times.
    Raises RecipeError where neither I nor 1 channel is wanted.
    """
    if stem.shape[1] == in_channels:
        return stem
    if in_channels != 1:
        raise RecipeError(
            "the pretrained weights take another number of channels",
            where=where,
            found=stem.shape[1],
            expected=f"{in_channels}, or 1",
            remedy="set `data.channels` to what the weights take, or to 1",
        )
    return stem.sum(dim=1, keepdim=True)


def start_from(part: nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Load `state` into `part`, every name and shape checked; raises StorageError that lists all faults.

    The counters of batch norms may be missing, as they are in older checkpoints. A part without memory (on the device
    "meta") is checked alone.
    """
    own = part.state_dict()
    counters = {name: tensor for name, tensor in own.items() if name.endswith(".num_batches_tracked")}
    state = {**counters, **state}
    faults = [f"not known: {name}" for name in state if name not in own]
    faults += [f"missing: {name}" for name in own if name not in state]
    faults += [
        f"{name}: {tuple(state[name].shape)} in place of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if faults:
        raise StorageError(
            "the pretrained weights are not complete, or of another network", where=where, offenders=faults
        )
    if not any(tensor.is_meta for tensor in own.values()):
        part.load_state_dict(state)

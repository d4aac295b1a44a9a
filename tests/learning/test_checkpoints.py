"""What a checkpoint brings back is what was saved, whatever its layout in memory."""

import copy
from pathlib import Path

import pytest
import torch

from preceptor.learning.checkpoints import load_checkpoint, load_optimizer, save_checkpoint


@pytest.mark.parametrize("fused", [False, True])
def test_a_loaded_optimizer_steps_as_the_one_that_was_saved(tmp_path: Path, fused: bool) -> None:
    """The fused step pairs a channels_last weight with its state by raw memory, and a file keeps no such layout."""
    torch.manual_seed(0)
    gone = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    resumed = copy.deepcopy(gone)
    first, second = (torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused) for network in (gone, resumed))
    image = torch.randn(2, 3, 8, 8)

    def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        network(image).square().mean().backward()
        optimizer.step()

    step(gone, first)
    save_checkpoint(tmp_path, {"task": gone.state_dict(), "optimizer": first.state_dict()})
    state, note = load_checkpoint(tmp_path)
    assert state is not None
    assert note == ""
    resumed.load_state_dict(state["task"])
    load_optimizer(second, state["optimizer"])
    for _ in range(2):
        step(gone, first)
        step(resumed, second)
    for ours, theirs in zip(resumed.parameters(), gone.parameters(), strict=True):
        assert torch.equal(ours, theirs)

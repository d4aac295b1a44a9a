"""The training loop that one writes by hand in plain PyTorch: the baseline of ours."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from preceptor.recipe import TrainingRecipe


class PlainLoop:
    """AdamW, autocast, clipping, and nothing else; settings are the recipe's, so that both do the same arithmetic."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[..., Tensor],
        settings: TrainingRecipe,
        device: torch.device,
        *,
        bf16: bool,
        channels_last: bool,
    ) -> None:
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(device, memory_format=self.format).train()
        self.loss, self.device, self.bf16, self.clip = loss, device, bf16, settings.clip
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )

    def autocast(self) -> torch.autocast:
        """bf16 arithmetic where it was asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def step(self, image: Tensor, mask: Tensor, condition: Tensor | None = None) -> float:
        """One step on image [B, C, H, W], mask [B, H, W] and, for a guided network, report features [B, L, D]."""
        image = image.to(self.device, memory_format=self.format)
        shown = None if condition is None else condition.to(self.device)
        return self.learn(lambda: self.loss(self.network(image, shown).logits, mask.to(self.device)))

    def learn(self, compute: Callable[[], Tensor]) -> float:
        """One step on the loss that `compute` returns."""
        with self.autocast():
            value = compute()
        value.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value.item()

"""C2FVL written down as its specification says it, step by step: the baseline of ours, with ours' weights.

Nothing is merged, reordered or shared: maps are enlarged before they are convolved, both branches of the gate run their
two layers through a turn of channels and columns, and attention is spelled out. Branches that no answer needs are left
out, though the original computes some of them. Source: specification of C2FVL, sections 2, 3 and 5.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class PlainC2FVL(nn.Module):
    """image [B, 3, H, W], attributes [B, 8] -> probability or logits, p1, p2, p3, p4, each [B, C, H, W].

    state: of a `segmentors.c2fvl.C2FVL` or `C2FVLFree`; heads and dropout as there.
    """

    def __init__(self, state: Mapping[str, Tensor], *, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.values = nn.ParameterDict()
        for key, value in state.items():
            name = key.replace(".", "/")
            if value.is_floating_point() and "running" not in key:
                self.values[name] = nn.Parameter(value.clone())
            else:
                self.register_buffer(name, value.clone())

    def _of(self, key: str) -> Tensor:
        name = key.replace(".", "/")
        return self.values[name] if name in self.values else self.get_buffer(name)

    def _conv(self, x: Tensor, key: str, **settings: int) -> Tensor:
        return functional.conv2d(x, self._of(f"{key}.weight"), self._of(f"{key}.bias"), **settings)

    def _linear(self, x: Tensor, key: str) -> Tensor:
        return functional.linear(x, self._of(f"{key}.weight"), self._of(f"{key}.bias"))

    def _norm(self, x: Tensor, key: str) -> Tensor:
        mean, variance = self._of(f"{key}.running_mean"), self._of(f"{key}.running_var")
        scale, bias = self._of(f"{key}.weight"), self._of(f"{key}.bias")
        return functional.batch_norm(x, mean, variance, scale, bias, training=self.training)

    def _cbr(self, x: Tensor, key: str, padding: int = 1) -> Tensor:
        return functional.relu(self._norm(self._conv(x, f"{key}.conv", padding=padding), f"{key}.norm"))

    def _down(self, x: Tensor, key: str) -> Tensor:
        return self._cbr(self._cbr(functional.max_pool2d(x, 2), f"{key}.1"), f"{key}.2")

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)

    def _branch(self, x: Tensor, key: str, kind: str) -> Tensor:
        x = functional.conv2d(x, self._of(f"{key}.conv_{kind}.weight"))
        x = self._linear(x.transpose(1, 3), f"{key}.linear_{kind}").transpose(1, 3)
        return functional.relu(x)

    def _vlab(self, x: Tensor, key: str) -> Tensor:
        average = torch.mean(self._branch(x, key, "avg"), dim=1, keepdim=True)
        largest, _ = torch.max(self._branch(x, key, "max"), dim=1, keepdim=True)
        gate = (average + largest).transpose(1, 3)
        gate = self._linear(functional.relu(self._linear(gate, f"{key}.bottleneck.0")), f"{key}.bottleneck.2")
        return gate.transpose(1, 3) * x

    def _up(self, deep: Tensor, skip: Tensor, key: str) -> tuple[Tensor, Tensor]:
        skip = self._vlab(skip, f"{key}.vlab")
        deep = functional.interpolate(deep, scale_factor=2, mode="nearest")
        return self._cbr(self._cbr(torch.cat([skip, deep], dim=1), f"{key}.join"), f"{key}.refine"), skip

    def _tokens(self, x: Tensor, before: Tensor | None, patch: int, key: str) -> Tensor:
        x = self._conv(x, f"{key}.embed", stride=patch).flatten(2).transpose(1, 2)
        x = self._drop(x + self._of(f"{key}.positions").flatten(2).transpose(1, 2))
        x = x + self._attention(self._layer_norm(x, f"{key}.norm1"), f"{key}.attention")
        hidden = self._drop(functional.gelu(self._linear(self._layer_norm(x, f"{key}.norm2"), f"{key}.fc1")))
        x = x + self._drop(functional.gelu(self._linear(hidden, f"{key}.fc2")))
        if before is None:
            return x
        weight, bias = self._of(f"{key}.reduce.weight"), self._of(f"{key}.reduce.bias")
        x = functional.conv1d(x.transpose(1, 2), weight, bias, padding=1)
        x = functional.relu(self._norm(x, f"{key}.norm")).transpose(1, 2)
        return torch.cat([x, before], dim=2)

    def _layer_norm(self, x: Tensor, key: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self._of(f"{key}.weight"), self._of(f"{key}.bias"))

    def _attention(self, x: Tensor, key: str) -> Tensor:
        count, length, width = x.shape
        joint = functional.linear(x, self._of(f"{key}.in_weight"), self._of(f"{key}.in_bias"))
        joint = joint.reshape(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key_, value = joint.unbind(0)
        shares = ((query @ key_.transpose(2, 3)) * (width // self.heads) ** -0.5).softmax(dim=-1)
        return self._linear((shares @ value).transpose(1, 2).reshape(count, length, width), f"{key}.out")

    def _rebuilt(self, tokens: Tensor, like: Tensor, factor: int, key: str) -> Tensor:
        rows = like.shape[2] // factor
        x = tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], rows, -1)
        return self._cbr(functional.interpolate(x, scale_factor=factor, mode="nearest"), key, padding=0)

    def forward(self, image: Tensor, attributes: Tensor) -> tuple[Tensor, ...]:
        x1 = self._cbr(image, "stem")
        y1 = self._tokens(x1, None, 16, "tokens.0")
        x2 = self._down(x1, "downs.0")
        y2 = self._tokens(x2, y1, 8, "tokens.1")
        x3 = self._down(x2, "downs.1")
        y3 = self._tokens(x3, y2, 4, "tokens.2")
        x4 = self._down(x3, "downs.2")
        y4 = self._tokens(x4, y3, 2, "tokens.3")
        x5 = self._down(x4, "downs.3")
        skips = []
        for number, (x, y, factor) in enumerate(((x1, y1, 16), (x2, y2, 8), (x3, y3, 4), (x4, y4, 2))):
            gate = attributes.repeat(1, x.shape[1] // attributes.shape[1])[:, :, None, None]
            skips.append((self._rebuilt(y, x, factor, f"rebuild.{number}") + x) * gate)
        d4, g4 = self._up(x5, skips[3], "ups.0")
        d3, g3 = self._up(d4, skips[2], "ups.1")
        d2, g2 = self._up(d3, skips[1], "ups.2")
        d1, g1 = self._up(d2, skips[0], "ups.3")
        out = self._conv(d1, "head")
        p4 = self._conv(functional.interpolate(g4, scale_factor=8, mode="nearest"), "align.0")
        p3 = self._conv(functional.interpolate(g3, scale_factor=4, mode="nearest"), "align.1")
        p2 = self._conv(functional.interpolate(g2, scale_factor=2, mode="nearest"), "align.2")
        p1 = self._conv(g1, "head")
        return (torch.sigmoid(out) if out.shape[1] == 1 else out), p1, p2, p3, p4


def plain_loss(found: tuple[Tensor, ...], mask: Tensor) -> Tensor:
    """0.5 Dice + 0.5 balanced cross-entropy + alignment of [B, 1, H, W], and a mask [B, H, W] of 0 and 1."""
    probability, *maps = found
    reference = mask.unsqueeze(1).to(probability.dtype)
    overlap = 0.5 * (probability * reference).sum((1, 2, 3)) + 1e-5
    total = 0.25 * (probability.square().sum((1, 2, 3)) + reference.square().sum((1, 2, 3))) + 1e-5
    dice = (1 - overlap / total).mean()
    entropy = functional.binary_cross_entropy(probability, reference, reduction="none")
    infected, spared = reference, 1 - reference
    balanced = 0.5 * (entropy * infected).sum() / (infected.sum() + 1e-12)
    balanced = balanced + 0.5 * (entropy * spared).sum() / (spared.sum() + 1e-12)
    anchor, *others = (p.flatten(1) for p in maps)
    apart = sum(0.5 * (1 - functional.cosine_similarity(anchor, other, dim=1)) for other in others)
    return 0.5 * dice + 0.5 * balanced + apart.mean()

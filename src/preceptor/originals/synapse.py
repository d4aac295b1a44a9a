"""What checkpoints trained on Synapse's eight organs have in common (specs of the segmentors, section 8)."""

from typing import Any

LABELS: dict[str, int] = {
    "background": 0,
    "aorta": 1,
    "gallbladder": 2,
    "left kidney": 3,
    "right kidney": 4,
    "liver": 5,
    "pancreas": 6,
    "spleen": 7,
    "stomach": 8,
}
"""The classes in the order of TransUNet's preparation, which others took over."""

MMSEG_KD: dict[str, Any] = {
    "preprocessing": {"size": 512, "resize": "bilinear", "antialias": False, "normalize": "zscore"},
    "remarks": "the original shifts each slice, after its z-score, so that its smallest value is 0; "
    "a package leaves the mean at 0",
    "labels": LABELS,
}
"""Notes of the networks as mmseg-kd trains them."""

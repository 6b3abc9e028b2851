"""Features that say nothing: a gain that survives them is not the text's.

Wang et al. 2025 show no such control; the suite asks for them beside every claim about texts.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Generator, Tensor

from intentbench.text.features import TextFeatures
from intentbench.text.store import MATRICES

Control = Literal["none", "shuffled", "gaussian"]
"""What `apply_control` can do."""


def apply_control(features: TextFeatures, control: Control, seed: int = 0) -> TextFeatures:
    """The features themselves, or a control of the same shapes.

    Args:
        features: of any source.
        control: "none"; "shuffled": each side's rows in another order, a user's intent and
            profile together; "gaussian": normal noise with each matrix's mean square.
        seed: of the order or the noise. The manifest's `source` names both.
    """
    if control == "none":
        return features
    generator = Generator().manual_seed(seed)
    if control == "shuffled":
        users = torch.randperm(len(features.user_intent), generator=generator)
        items = torch.randperm(len(features.item_intent) - 1, generator=generator) + 1
        items = torch.cat([torch.zeros(1, dtype=torch.int64), items])
        tensors = {
            name: matrix[users if name.startswith("user") else items]
            for name, matrix in features.matrices().items()
        }
    else:
        tensors = {name: _noise(getattr(features, name), generator) for name in MATRICES}
        for name in ("item_intent", "item_profile"):
            tensors[name][0] = 0
    source = f"{features.manifest.source} ({control}, seed {seed})"
    return replace(features, **tensors, manifest=replace(features.manifest, source=source))


def _noise(matrix: Tensor, generator: Generator) -> Tensor:
    scale = matrix.square().mean().sqrt()
    return torch.randn(matrix.shape, generator=generator) * scale

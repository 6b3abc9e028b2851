"""How the field initialises its weights. Use with `module.apply(...)`."""

import torch
from torch import nn


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Linear and embedding weights N(0, std²), biases 0, `PAD` rows 0 (S3-Rec lineage)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    _zero(module)


def init_xavier(module: nn.Module) -> None:
    """Linear and embedding weights Xavier-normal, biases 0, `PAD` rows 0 (SASRec)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.xavier_normal_(module.weight)
    _zero(module)


def _zero(module: nn.Module) -> None:
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()

"""Clipping of gradients that a fused optimiser and bfloat16 get along with."""

from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch.optim import Optimizer


def clip_gradients(
    module: LightningModule, optimizer: Optimizer, limit: float | None, algorithm: str | None
) -> None:
    """As `LightningModule.clip_gradients`, but also in bfloat16 with a fused optimiser.

    Lightning refuses that, as a fused optimiser unscales gradients by itself, after the clipping.
    In bfloat16 none are scaled.

    Args:
        module: being trained.
        optimizer: whose gradients.
        limit: largest norm, or value; None or 0 for no limit.
        algorithm: "norm" (None) or "value".
    """
    plugin = module.trainer.precision_plugin
    if getattr(plugin, "scaler", None) is not None:
        module.clip_gradients(optimizer, limit, algorithm)
        return
    chosen = GradClipAlgorithmType(algorithm or "norm")
    Precision.clip_gradients(plugin, optimizer, limit or 0.0, chosen)

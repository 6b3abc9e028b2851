"""A lower bound on the mutual information of two representations (InfoNCE)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from intentbench.metrics.geometry import Floats

HIDDEN = 64
STEPS = 300
BATCH = 256


def mutual_information(first: Floats, second: Floats, seeds: int = 5) -> float:
    """InfoNCE bound in nats (van den Oord et al. 2018) with a two-layer critic, mean over seeds.

        I(X; Y) ≥ log B - E[ -log e^{f(x, y)} / Σ_j e^{f(x, y_j)} ],  f(x, y) = a(x)·b(y)

    The critic is trained on three quarters of the rows and judged on the rest, so independent
    inputs give about 0. It cannot exceed log of the `BATCH` rows that are compared.

    Args:
        first: (T, D), T ≥ 8.
        second: (T, D').
        seeds: critics trained.
    """
    x, y = (torch.from_numpy(_standardised(values)) for values in (first, second))
    return float(np.mean([_bound(x, y, seed) for seed in range(seeds)]))


def _bound(x: Tensor, y: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone
        critic = nn.ModuleList([_tower(x.shape[1]), _tower(y.shape[1])])
    order = torch.randperm(len(x), generator=generator)
    cut = 3 * len(x) // 4
    train, held_out = order[:cut], order[cut:]
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(STEPS):
        rows = train[torch.randint(len(train), (BATCH,), generator=generator)]
        optimiser.zero_grad()
        _contrast(critic, x[rows], y[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        size = min(BATCH, len(held_out))
        parts = [rows for rows in held_out.split(size) if len(rows) == size]  # type: ignore[no-untyped-call]
        losses = [float(_contrast(critic, x[rows], y[rows])) for rows in parts]
    return max(float(np.log(size)) - float(np.mean(losses)), 0.0)


def _contrast(critic: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    scores = critic[0](x) @ critic[1](y).T
    return cross_entropy(scores, torch.arange(len(x)))


def _tower(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))


def _standardised(values: Floats) -> Floats:
    spread = values.std(0)
    result: Floats = ((values - values.mean(0)) / np.where(spread > 0, spread, 1)).astype(
        np.float32
    )
    return result

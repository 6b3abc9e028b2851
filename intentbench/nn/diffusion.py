"""Gaussian diffusion of vectors that predicts the clean vector x_0 (Ho et al. 2020).

    q(x_t | x_0) = N(√ᾱ_t x_0, (1 - ᾱ_t) I)
    x_{t-1} = [β_t √ᾱ_{t-1} / (1-ᾱ_t)] x̂_0 + [(1-ᾱ_{t-1}) √α_t / (1-ᾱ_t)] x_t + σ_t z

Steps are counted 1..T as in the papers; row t - 1 of each table belongs to step t.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Schedule = Literal["exp", "linear", "cosine", "sqrt", "trunc_lin"]


def betas(schedule: Schedule, steps: int) -> Tensor:
    """β_1 … β_T, float64 (T,).

    - `exp`: 1 - exp(-β_min/T - x_i (β_max-β_min)/(2T²)), x_i evenly from 1 to 2T+1, β_min 0.1,
      β_max 10 (DreamRec, InDiRec);
    - `linear`: 1e-4 to 0.02 (Ho et al. 2020);
    - `cosine`: from ᾱ(u) = cos²(π/2 (u + 0.008)/1.008), clipped to [1e-4, 0.9999];
    - `sqrt`: from ᾱ(u) = 1 - √(u + 1e-4), clipped at 0.999 (Diffusion-LM);
    - `trunc_lin`: evenly from 1000/T 1e-4 + 0.01 to 1000/T 0.02 + 0.01, or, where that is above
      1, to 1000/T 1e-3 + 0.01 (DiffuSeq, DiffuRec).

    >>> [round(float(b), 6) for b in betas("exp", 25)[[0, -1]]]
    [0.011849, 0.334968]
    """
    count = torch.arange(steps, dtype=torch.float64)
    if schedule == "exp":
        low, high = 0.1, 10.0
        x = torch.linspace(1, 2 * steps + 1, steps, dtype=torch.float64)
        return 1 - torch.exp(-low / steps - x * 0.5 * (high - low) / steps**2)
    if schedule == "linear":
        return torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)
    if schedule == "trunc_lin":
        scale = 1000 / steps
        high = scale * 0.02 + 0.01
        if high > 1:
            high = scale * 0.001 + 0.01
        return torch.linspace(scale * 1e-4 + 0.01, high, steps, dtype=torch.float64)
    ends = torch.stack([count, count + 1]) / steps
    if schedule == "cosine":
        kept = torch.cos((ends + 0.008) / 1.008 * math.pi / 2).square()
    else:
        kept = 1 - torch.sqrt(ends + 1e-4)
    beta: Tensor = 1 - kept[1] / kept[0]
    return beta.clamp(1e-4, 0.9999) if schedule == "cosine" else beta.clamp(max=0.999)


def step_embedding(steps: Tensor, width: int) -> Tensor:
    """D/2 sines, then D/2 cosines of integer steps (B,), frequencies 10000^(-k/(D/2-1)): (B, D)."""
    half = width // 2
    scale = -math.log(10000) / max(half - 1, 1)
    frequency = torch.exp(scale * torch.arange(half, device=steps.device, dtype=torch.float32))
    angle = steps[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)


class GaussianDiffusion(nn.Module):
    """The tables of a schedule, on the device, and the two directions.

    Args:
        schedule: see `betas`.
        steps: T.
    """

    beta: Tensor
    alpha_bar: Tensor
    clean_weight: Tensor
    noisy_weight: Tensor
    sigma: Tensor

    def __init__(self, schedule: Schedule, steps: int) -> None:
        super().__init__()
        self.steps = steps
        beta = betas(schedule, steps)
        alpha_bar = (1 - beta).cumprod(0)
        before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        tables = {
            "beta": beta,
            "alpha_bar": alpha_bar,
            "clean_weight": beta * before.sqrt() / (1 - alpha_bar),
            "noisy_weight": (1 - before) * (1 - beta).sqrt() / (1 - alpha_bar),
            "sigma": (beta * (1 - before) / (1 - alpha_bar)).sqrt(),
        }
        tables["clean_weight"][0], tables["noisy_weight"][0] = 1, 0  # exact at the last step
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def diffuse(self, clean: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """x_t of x_0.

        Args:
            clean: (B, …) x_0.
            steps: (B,) t in 1..T.
            noise: like `clean`, standard normal.
        """
        alpha_bar = self.alpha_bar[steps - 1].reshape(-1, *[1] * (clean.ndim - 1))
        return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise

    def reverse(self, noisy: Tensor, clean: Tensor, step: int, noise: Tensor) -> Tensor:
        """x_{t-1} from x_t and the predicted x_0; at t = 1 the prediction itself.

        Args:
            noisy: (B, …) x_t.
            clean: the predicted x_0.
            step: t, the same for all rows.
            noise: standard normal; unused at t = 1.
        """
        if step == 1:
            return clean
        mean = self.clean_weight[step - 1] * clean + self.noisy_weight[step - 1] * noisy
        return mean + self.sigma[step - 1] * noise

    def sample(self, start: Tensor, predict: Callable[[Tensor, int], Tensor]) -> Tensor:
        """x_0 from x_T in T steps.

        Args:
            start: (B, …) standard normal noise x_T.
            predict: (x_t, t) -> predicted x_0.
        """
        state = start
        for step in range(self.steps, 0, -1):
            state = self.reverse(state, predict(state, step), step, torch.randn_like(state))
        return state

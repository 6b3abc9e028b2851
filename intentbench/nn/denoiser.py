"""A denoiser of vectors and its guided diffusion (DreamRec 2023, InDiRec 2025).

    f(x_t, s, t) predicts x_0,  ‖x_0 - f(x_t, s̃, t)‖²,  s̃ = Φ with probability p, else s
    x̂_0 = (1 + w) f(x_t, s, t) - w f(x_t, Φ, t)            (Ho & Salimans 2022)

One linear layer is affine in everything it reads. Guidance is then one call with a shifted signal,
f(x_t, s + w(s - Φ), t), and a step of generation is

    x_{t-1} = A_t x_t + c_t W_s s' + u_t + σ_t z,  A_t = c_t W_x + n_t I,  u_t = c_t (W_τ τ_t + b)

with c_t, n_t, σ_t the weights of `nn.diffusion`: A_t and u_t are made for all t at once.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from intentbench.nn.diffusion import GaussianDiffusion, Schedule, step_embedding
from intentbench.nn.processes import pool_mean

DenoiserName = Literal["mlp1", "mlp2"]


class Denoiser(nn.Module):
    """f(x_t, s, t), with Φ, the signal that says nothing.

    τ_t is the sinusoid of t, then Linear(D, 2D), GELU, Linear(2D, D). `mlp1` is one linear layer
    on [x_t; s; τ_t], `mlp2` is Linear(3D, 2D), GELU, Linear(2D, D).

    Args:
        width: D.
        kind: which of the two.
        steps: T.
    """

    sinusoids: Tensor

    def __init__(self, width: int, kind: DenoiserName, steps: int) -> None:
        super().__init__()
        self.time = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.network: nn.Module = nn.Linear(3 * width, width)
        if kind == "mlp2":
            self.network = nn.Sequential(
                nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
        self.nothing = nn.Parameter(torch.randn(width))
        sinusoids = step_embedding(torch.arange(1, steps + 1), width)
        self.register_buffer("sinusoids", sinusoids, persistent=False)

    def times(self) -> Tensor:
        """τ_t of every step, (T, D)."""
        table: Tensor = self.time(self.sinusoids)
        return table

    def forward(
        self, noisy: Tensor, signal: Tensor, steps: Tensor, times: Tensor | None = None
    ) -> Tensor:
        """Predicted x_0 (R, D).

        Args:
            noisy: (R, D) x_t.
            signal: (R, D).
            steps: (R,) t in 1..T.
            times: what `times()` gives, where it is at hand.
        """
        table = self.times() if times is None else times
        result: Tensor = self.network(torch.cat([noisy, signal, table[steps - 1]], 1))
        return result


class GuidedDiffusion(nn.Module):
    """Training and sampling of vectors under a signal.

    Args:
        width: D.
        kind: of the denoiser.
        schedule: of the noise.
        steps: T.
        guidance: w; -1 leaves the signal out, 0 is plain conditional sampling.
        signal_dropout: p.
    """

    def __init__(
        self,
        width: int,
        kind: DenoiserName,
        schedule: Schedule,
        steps: int,
        guidance: float,
        signal_dropout: float,
    ) -> None:
        super().__init__()
        self.process = GaussianDiffusion(schedule, steps)
        self.denoiser = Denoiser(width, kind, steps)
        self.guidance = guidance
        self.signal_dropout = signal_dropout

    def drop(self, signal: Tensor, noise: Tensor) -> Tensor:
        """Φ in the rows of `signal` (B, D) whose `noise` (B,), uniform, is below p."""
        return torch.where(noise[:, None] < self.signal_dropout, self.denoiser.nothing, signal)

    def loss(self, clean: Tensor, signal: Tensor, rows: Tensor) -> Tensor:
        """Mean squared error of the predicted x_0, one step and one signal a sequence.

        Args:
            clean: (R, D) vectors x_0, one or more a sequence.
            signal: (B, D).
            rows: (R,) sequence of each vector, 0..B-1.
        """
        count = len(signal)
        dropped = self.drop(signal, torch.rand(count, device=signal.device))
        steps = torch.randint(1, self.process.steps + 1, (count,), device=signal.device)[rows]
        noisy = self.process.diffuse(clean, steps, torch.randn_like(clean))
        error: Tensor = mse_loss(self.denoiser(noisy, dropped[rows], steps), clean)
        return pool_mean(error, len(rows))

    def guided(
        self, noisy: Tensor, signal: Tensor, step: int, times: Tensor | None = None
    ) -> Tensor:
        """x̂_0 (R, D) at one step, by two calls; `times` as in `Denoiser.forward`."""
        steps = torch.full((len(noisy),), step, device=noisy.device)
        nothing = self.denoiser.nothing.expand_as(signal)
        without: Tensor = self.denoiser(noisy, nothing, steps, times)
        found: Tensor = self.denoiser(noisy, signal, steps, times)
        return found + self.guidance * (found - without)

    @torch.no_grad()
    def generate(self, signal: Tensor, noise: Tensor | None = None) -> Tensor:
        """Sample x_0 (R, D) under signals (R, D), in T steps from noise; keeps no graph.

        Args:
            signal: (R, D).
            noise: (T, R or 1, D) standard normal: row 0 is x_T, row t - 1 is added at step t.
                None: drawn from the global generator.
        """

        def draw(row: int) -> Tensor:
            return torch.randn_like(signal) if noise is None else noise[row].expand_as(signal)

        if isinstance(self.denoiser.network, nn.Linear):
            return self._generate_affine(draw, signal, self.denoiser.network)
        state, times = draw(0), self.denoiser.times()
        for step in range(self.process.steps, 1, -1):
            clean = self.guided(state, signal, step, times)
            state = self.process.reverse(state, clean, step, draw(step - 1))
        return self.guided(state, signal, 1, times)

    def _generate_affine(
        self, draw: Callable[[int], Tensor], signal: Tensor, network: nn.Linear
    ) -> Tensor:
        """The same draws and the same result as by `guided`, at one product a step."""
        process, nothing = self.process, self.denoiser.nothing
        of_noisy, of_signal, of_time = network.weight.chunk(3, dim=1)
        clean, sigma = process.clean_weight, process.sigma
        keep = process.noisy_weight[:, None, None] * torch.eye(len(nothing), device=signal.device)
        matrices = clean[:, None, None] * of_noisy.T + keep  # (T, D, D)
        times = self.denoiser.times()
        shifts = clean[:, None] * (times @ of_time.T + network.bias)  # (T, D)
        push = (signal + self.guidance * (signal - nothing)) @ of_signal.T  # (R, D)
        state = draw(0)
        for step in reversed(range(process.steps)):
            drift = torch.addcmul(shifts[step], push, clean[step])
            if step:
                drift.addcmul_(draw(step), sigma[step])
            state = torch.addmm(drift, state, matrices[step])
        return state

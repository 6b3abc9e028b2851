"""How often does the gate pass, refuse, and say that it cannot tell? Planted losses in drawn ranks.

    python benchmarks/studies/gate_power.py [--repetitions 400] [--users 20000] [--spread 0.017]

A user has a difficulty, a model suits some users, a seed shifts all log ranks of its model and adds
noise, as in `statistics_validation.py`. The new model's log ranks are shifted so that its
expected NDCG@10 is lower by a chosen share; that expectation is a sum over ranks 1 to 10, so the
planted loss is exact. Users, models and seeds are drawn anew in every repetition. Prints a Markdown
table of the shares of repetitions with each verdict.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from intentbench.metrics.formulas import ndcg
from intentbench.stats.components import Values
from intentbench.stats.gate import Verdict, give_verdicts, judge_margin

CENTRE, DIFFICULTY, TASTE, NOISE = 4.0, 2.0, 0.5, 0.7
"""Mean of users' log ranks, and standard deviations: over users, of a model's users, of a trial."""

N_ITEMS = 10_000
LOSSES = (0.0, 0.02, 0.05, 0.06, 0.10)
MARGINS = (0.02, 0.05)


@dataclass(frozen=True)
class Setup:
    """Seeds of the new model and of its baseline."""

    n_new: int
    n_base: int


SETUPS = (Setup(1, 3), Setup(1, 5), Setup(3, 3), Setup(5, 5), Setup(10, 10))


def expected_ndcg(shift: float, spread: float) -> float:
    """Expected NDCG@10 of a model whose log ranks are shifted, its seeds by N(0, spread^2)."""
    deviation = np.sqrt(DIFFICULTY**2 + TASTE**2 + NOISE**2 + spread**2)
    below = norm.cdf(np.log(np.arange(2, 12)), CENTRE + shift, deviation)  # P(rank <= 1 … 10)
    gains = 1 / np.log2(np.arange(2, 12))
    return float(gains @ np.diff(below, prepend=0.0))


def spread_of_seeds(share: float) -> float:
    """Spread of the shift with which seeds' expected NDCG@10 has this SD, as share of its mean."""
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()

    def excess(spread: float) -> float:
        means = np.array([expected_ndcg(spread * point, 0.0) for point in points])
        mean = weights @ means
        return float(np.sqrt(weights @ (means - mean) ** 2) / mean - share)

    return float(brentq(excess, 0.0, 1.0)) if share else 0.0


def shift_of_loss(loss: float, spread: float) -> float:
    """Shift of log ranks that takes away this share of the expected NDCG@10."""
    wanted = (1 - loss) * expected_ndcg(0.0, spread)
    return float(brentq(lambda shift: expected_ndcg(shift, spread) - wanted, -1.0, 5.0))


def draw_model(
    generator: np.random.Generator,
    difficulty: np.ndarray,
    n_seeds: int,
    spread: float,
    shifts: Sequence[float],
) -> list[Values]:
    """(S, U) NDCG@10 of a model under each shift, from the same draws."""
    n_users = len(difficulty)
    log_rank = difficulty + generator.normal(0, TASTE, n_users)
    log_rank = log_rank + generator.normal(0, spread, (n_seeds, 1))
    log_rank += generator.normal(0, NOISE, (n_seeds, n_users))
    return [
        ndcg(np.clip(np.exp(log_rank + shift), 1, N_ITEMS).astype(np.int64), 10) for shift in shifts
    ]


def count_verdicts(
    setup: Setup,
    repetitions: int,
    n_users: int,
    share: float,
    losses: Sequence[float] = LOSSES,
    margins: Sequence[float] = MARGINS,
    seed: int = 20_260_310,
) -> dict[tuple[float, float], Counter[Verdict]]:
    """Verdicts of the gate for every (margin, planted loss)."""
    spread = spread_of_seeds(share)
    shifts = [shift_of_loss(loss, spread) for loss in losses]
    counts = {(margin, loss): Counter[Verdict]() for margin in margins for loss in losses}
    for number in range(repetitions):
        generator = np.random.default_rng([seed, setup.n_new, setup.n_base, number])
        difficulty = generator.normal(CENTRE, DIFFICULTY, n_users)
        (base,) = draw_model(generator, difficulty, setup.n_base, spread, [0.0])
        models = draw_model(generator, difficulty, setup.n_new, spread, shifts)
        for loss, new in zip(losses, models, strict=True):
            for margin in margins:
                counts[margin, loss].update(give_verdicts([judge_margin(new, base, margin)]))
    return counts


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--spread", type=float, default=0.017, help="SD over seeds / mean")
    options = parser.parse_args()
    print("| margin | seeds, new / baseline | true loss | pass | worse | cannot tell |")
    print("| --: | :-: | --: | --: | --: | --: |")
    for setup in SETUPS:
        counts = count_verdicts(setup, options.repetitions, options.users, options.spread)
        for (margin, loss), found in counts.items():
            rates = " | ".join(f"{found[verdict] / options.repetitions:.3f}" for verdict in Verdict)
            seeds = f"{setup.n_new} / {setup.n_base}"
            print(f"| {margin:.0%} | {seeds} | {loss:.0%} | {rates} |", flush=True)


if __name__ == "__main__":
    main()

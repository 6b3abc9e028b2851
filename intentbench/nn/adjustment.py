"""How intents move in time, as a loss, and what tells that their split from interest failed."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from intentbench.nn.disentangle import SHORT, Reading, Split, unit

Adjustment = Literal["adjacent", "ranked", "relative", "orthogonal"]


def adjustment(
    form: Adjustment,
    margin: float,
    split: Split,
    lengths: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """The similarity adjustment loss, summed over positions t.

    - `adjacent`: 1 - cos(I_t, I_{t-1});
    - `ranked`: [μ - cos(I_t, I_{t-1}) + cos(I_t, I_s)]_+, s drawn from 1..t-2;
    - `relative`: [μ + cos(I_t, I_{t-1}) - cos(R_t, R_{t-1})]_+;
    - `orthogonal`: cos(R_t, I_t)².

    Args:
        form: the above.
        margin: μ.
        split: H, R and I (B, n, D).
        lengths: (B,) real positions of each row.
        noise: (B, N) in [0, 1), N ≥ n, for `ranked`.

    Returns:
        The sum, and over how many positions it goes: scalars.
    """
    interests, intents = unit(split.interests), unit(split.intents)
    time = torch.arange(intents.shape[1], device=intents.device)
    first = {"orthogonal": 0, "ranked": 2}.get(form, 1)
    counted = ((time >= first) & (time < lengths[:, None]))[:, first:]
    if form == "orthogonal":
        terms = (interests * intents).sum(-1).square()
        return torch.where(counted, terms, 0.0).sum(), counted.sum()
    likeness = (intents[:, 1:] * intents[:, :-1]).sum(-1)[:, first - 1 :]
    if form == "adjacent":
        terms = 1 - likeness
    elif form == "relative":
        terms = (margin + likeness - (interests[:, 1:] * interests[:, :-1]).sum(-1)).relu()
    else:
        drawn = (noise[:, first : len(time)] * (time[first:] - 1)).long()
        other = intents.gather(1, drawn[..., None].expand(-1, -1, intents.shape[2]))
        terms = (margin - likeness + (intents[:, first:] * other).sum(-1)).relu()
    return torch.where(counted, terms, 0.0).sum(), counted.sum()


@torch.no_grad()
def signatures(readings: Sequence[Reading]) -> dict[str, Tensor]:
    """What tells of a failed split, over the last positions of a batch's rows; scalars.

    - `intent_cosine`: mean cosine of two rows' intents; near 1, all intents are one;
    - `interest_norm`, `intent_norm`: mean ‖r‖/‖h‖ and ‖q‖/‖h‖; where the intent is near 0 the
      interest is all of the behaviour, where the interest is, the intent is;
    - `category_size`: mean |C| (1/Σ share² where membership is soft);
    - `category_alone`: share of rows whose category is the current intent alone.

    Args:
        readings: of each group of rows, at one position a row.
    """
    state, interest, raw = (
        torch.cat([part[field].flatten(0, 1) for part in readings]).float() for field in range(3)
    )
    size = torch.cat([1 / part.shares.square().sum(-1).flatten() for part in readings]).float()
    count = len(raw)
    length = torch.linalg.vector_norm(state, dim=1).clamp(min=SHORT)
    alike = unit(raw).sum(0).square().sum() - unit(raw).square().sum()
    return {
        "intent_cosine": alike / max(count * (count - 1), 1),
        "interest_norm": (torch.linalg.vector_norm(interest, dim=1) / length).mean(),
        "intent_norm": (torch.linalg.vector_norm(raw, dim=1) / length).mean(),
        "category_size": size.mean(),
        "category_alone": (size < 1.5).float().mean(),
    }

"""How intents move, and what tells of a failed split, against loops over positions."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from intentbench.nn.adjustment import Adjustment, adjustment, signatures
from intentbench.nn.disentangle import Disentangler, Reading, Split

WIDTH = 4
LENGTHS = torch.tensor([6, 4, 3, 1])
FORMS: tuple[Adjustment, ...] = ("adjacent", "ranked", "relative", "orthogonal")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def vectors() -> Tensor:
    return torch.randn(4, 6, WIDTH, dtype=torch.float64) + 0.5


def real() -> Tensor:
    return torch.arange(6) < LENGTHS[:, None]


def mean_adjustment(form: Adjustment, split: Split, lengths: Tensor, noise: Tensor) -> Tensor:
    total, count = adjustment(form, 0.2, split, lengths, noise)
    return total / count.clamp(min=1)


@pytest.mark.parametrize("form", FORMS)
def test_adjustment_equals_a_loop(form: Adjustment) -> None:
    intents, interests, noise = vectors(), vectors(), torch.rand(4, 8)
    terms = []
    for row, length in enumerate(LENGTHS.tolist()):
        r, i = interests[row], intents[row]
        for t in range(length):
            if form == "orthogonal":
                terms.append(cosine_similarity(r[t], i[t], dim=0) ** 2)
            elif t >= (2 if form == "ranked" else 1):
                near = cosine_similarity(i[t], i[t - 1], dim=0)
                if form == "adjacent":
                    terms.append(1 - near)
                elif form == "relative":
                    slow = cosine_similarity(r[t], r[t - 1], dim=0)
                    terms.append((0.2 + near - slow).clamp(min=0))
                else:
                    s = int(noise[row, t] * (t - 1))
                    far = cosine_similarity(i[t], i[s], dim=0)
                    terms.append((0.2 - near + far).clamp(min=0))
    split = Split(interests + intents, interests, intents)
    found = mean_adjustment(form, split, LENGTHS, noise)
    torch.testing.assert_close(found, torch.stack(terms).mean(), atol=1e-12, rtol=0)
    changed = intents.masked_fill(~real()[..., None], 7.0) * torch.rand(4, 6, 1).add(0.1)
    scaled = Split(split.states, interests, changed)
    torch.testing.assert_close(mean_adjustment(form, scaled, LENGTHS, noise), found)


def test_adjustment_at_its_extremes() -> None:
    noise = torch.rand(4, 6)
    direction = torch.randn(WIDTH, dtype=torch.float64)
    collapsed = direction * (1 + torch.rand(4, 6, 1, dtype=torch.float64))
    turning = collapsed * torch.tensor([1.0, -1.0] * 3)[None, :, None]
    for form, intents, expected in (
        ("adjacent", collapsed, 0.0),
        ("adjacent", turning, 2.0),
        ("ranked", collapsed, 0.2),
    ):
        split = Split(intents, intents, intents)
        found = mean_adjustment(form, split, LENGTHS, noise)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(expected, abs=1e-12)
    for form_ in FORMS[:3]:
        one = Split(*(part[:, :1] for part in Split(turning, turning, turning)))
        assert mean_adjustment(form_, one, torch.ones(4), noise) == 0


def test_adjacent_pulls_neighbours_together() -> None:
    intents = torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]], requires_grad=True)
    split = Split(intents, intents, intents)
    mean_adjustment("adjacent", split, torch.tensor([2]), torch.rand(1, 2)).backward()  # type: ignore[no-untyped-call]
    assert intents.grad is not None
    moved = intents.detach() - 0.1 * intents.grad
    assert cosine_similarity(moved[0, 0], moved[0, 1], dim=0) > 0.1


def test_signatures_equal_loops() -> None:
    reader = Disentangler(
        WIDTH, 1, 0.0, True, "projected", "fixed", 0.5, 3, "mean_dot", "sum"
    ).double()

    @torch.no_grad()
    def read(states: Tensor, positions: list[int]) -> Reading:
        return reader.read(reader.split(states), torch.tensor(positions)[:, None])

    readings = [
        read(vectors()[:2, :5], [4, 2]),
        read(vectors()[:3, :2], [1, 1, 0]),
    ]
    found = signatures(readings)
    raw = torch.cat([reading.raw[:, 0] for reading in readings])
    states = torch.cat([reading.state[:, 0] for reading in readings])
    pairs = [
        float(cosine_similarity(raw[a], raw[b], dim=0))
        for a in range(5)
        for b in range(5)
        if a != b
    ]
    sizes = [float((shares > 0).sum()) for part in readings for shares in part.shares]
    share = torch.cat([reading.interest[:, 0] for reading in readings]).norm(dim=1)
    expected = {
        "intent_cosine": sum(pairs) / 20,
        "interest_norm": float((share / states.norm(dim=1)).mean()),
        "intent_norm": float((raw.norm(dim=1) / states.norm(dim=1)).mean()),
        "category_size": sum(sizes) / 5,
        "category_alone": sum(size == 1 for size in sizes) / 5,
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, 1e-5)

"""Members of clusters, drawn by arithmetic, against filtered lists (InDiRec's must-hold 8)."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from datamodules.types import TrainingData
from intentbench.nn.cluster_members import ClusterMembers

USERS = [[1, 2, 3, 4, 5], [2, 4], [3], [5, 1, 2, 3], [], [4, 3, 2]]
OWNERS = [user for user, items in enumerate(USERS) for _ in items[1:]]
LABELS = [0, 1, 0, 0, 1, 1, 1, 1, 3, 3]
"""Clusters of the ten prefixes: 0 has one user, 1 three, 2 nobody, 3 one."""

GRID = torch.linspace(0, 1 - 1e-9, 401, dtype=torch.float64)


def members(others_only: bool = True, accumulate: bool = False) -> ClusterMembers:
    built = ClusterMembers(4, 2, others_only, accumulate)
    offsets = torch.tensor([0, *[len(items) for items in USERS]]).cumsum(0)
    items = torch.tensor([item for user in USERS for item in user])
    built.prepare(TrainingData(items, offsets, n_items=5), window=3)
    return built


def filled(others_only: bool) -> ClusterMembers:
    built = members(others_only)
    labels = torch.tensor(LABELS)
    built.codes = (labels * len(LABELS) + torch.arange(len(LABELS))).sort().values
    return built


def drawn(built: ClusterMembers, cluster: int, own: int) -> Counter[int]:
    rows = torch.full(GRID.shape, own)
    return Counter(built.draw(torch.full(GRID.shape, cluster), rows, GRID).tolist())


def allowed(cluster: int, own: int, others_only: bool) -> set[int]:
    inside = [number for number, label in enumerate(LABELS) if label == cluster]
    if not others_only:
        return set(inside) or {own}
    others = {number for number in inside if OWNERS[number] != OWNERS[own]}
    shorter = {number for number in inside if OWNERS[number] == OWNERS[own] and number <= own}
    return others or shorter or {own}


@pytest.mark.parametrize("others_only", [False, True])
def test_draws_are_those_of_filtered_lists(others_only: bool) -> None:
    built = filled(others_only)
    for cluster in range(4):
        for own in range(len(LABELS)):
            found = drawn(built, cluster, own)
            assert set(found) == allowed(cluster, own, others_only), (cluster, own)
            share = len(GRID) / len(found)
            assert all(abs(count - share) <= 1 for count in found.values()), "not uniform"


def test_longer_prefixes_of_the_user_are_never_drawn() -> None:
    built = filled(others_only=True)
    for cluster in range(4):
        for own in range(len(LABELS)):
            found = drawn(built, cluster, own)
            assert not [n for n in found if OWNERS[n] == OWNERS[own] and n > own]


def encode(items: Tensor) -> Tensor:
    """A causal stand-in for an encoder: (last item, running sum)."""
    return torch.stack([items.float(), items.cumsum(1).float()], 2)


def test_lists_partition_the_prefixes_and_hold_the_nearest_centroid() -> None:
    built = members()
    for _ in range(2):
        built.fit(encode)
        clusters, numbers = built.codes // len(LABELS), built.codes % len(LABELS)
        assert numbers.sort().values.tolist() == list(range(len(LABELS)))
        states = built.prefixes.encode_all(encode)
        assert clusters.equal(built.kmeans.assign(states)[numbers])
        assert built.labels[numbers].equal(clusters)


def test_accumulated_lists_grow_and_travel_with_the_state() -> None:
    built = members(accumulate=True)
    built.fit(encode)
    once = built.codes
    built.fit(encode)
    assert built.codes.tolist() == sorted([*once.tolist(), *once.tolist()])
    fresh = ClusterMembers(4, 2, others_only=True, accumulate=True)
    fresh.load_state_dict(built.state_dict())
    assert fresh.codes.equal(built.codes)
    built.prepare(TrainingData(torch.tensor([1, 2]), torch.tensor([0, 2]), 5), window=3)
    assert len(built.codes) == 0, "another fit starts without members"


def test_rebuilt_lists_are_no_part_of_the_state() -> None:
    built = members()
    before = {name: tensor.shape for name, tensor in built.state_dict().items()}
    built.fit(encode)
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == before


def test_without_training_events_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        ClusterMembers(4, 2, others_only=True, accumulate=False).fit(encode)

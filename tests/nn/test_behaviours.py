"""Behaviours in the codes of items, and clusters within each behaviour."""

import pytest
import torch
from torch import nn

from datamodules.types import PAD
from intentbench.nn.behaviours import BehaviourEmbedding, ClustersByBehaviour
from tests.nn.test_cluster_members import OWNERS, USERS, encode
from tests.nn.test_other_clusters import TRAINING

EVENTS = [(user, place) for user, items in enumerate(USERS) for place in range(len(items))]
BEHAVIOURS = torch.tensor([1 + (user + place) % 2 for user, place in EVENTS])


def test_codes_are_the_sum_of_item_and_behaviour() -> None:
    items = nn.Embedding(6, 4, padding_idx=PAD)
    both = BehaviourEmbedding(items, 3)
    for item in range(6):
        assert both(torch.tensor(item)).equal(items.weight[item]), "an item alone"
        for behaviour in (1, 2, 3):
            found = both(torch.tensor(item + 6 * behaviour))
            assert found.equal(items.weight[item] + both.behaviours.weight[behaviour])
    assert both.weight is items.weight
    both(torch.tensor([[1, 2 + 6], [PAD, 5]])).sum().backward()
    assert both.behaviours.weight.grad is not None
    assert both.behaviours.weight.grad[1].all()
    assert not both.behaviours.weight.grad[[0, 2, 3]].any(), "no behaviour has no vector"


def test_clusters_are_of_one_behaviour_and_of_its_nearest_centroid() -> None:
    built = ClustersByBehaviour(2, 2, others_only=True, behaviours=3)
    built.prepare(TRAINING, window=3)
    with pytest.raises(RuntimeError, match="take_behaviours"):
        built.fit(encode)
    built.take_behaviours(BEHAVIOURS)
    built.fit(encode)
    states = built.prefixes.encode_all(encode)
    last = [
        int(BEHAVIOURS[EVENTS.index((user, place))])
        for user, items in enumerate(USERS)
        for place in range(len(items) - 1)
    ]
    assert len(last) == len(OWNERS)
    assert set(last) == {1, 2}
    for number, behaviour in enumerate(last):
        label = int(built.labels[number])
        assert label // 2 == behaviour
        centroids = built.apart[behaviour].centroids
        assert label % 2 == int((states[number] - centroids).norm(dim=1).argmin())  # type: ignore[operator]

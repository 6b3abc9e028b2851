"""Pairs, and noise among them."""

import numpy as np
import pytest
import torch

from datamodules.edge_noise import add_pairs
from datamodules.errors import RequestError
from datamodules.interactions import InteractionDataModule
from datamodules.prepared import TEST, TRAIN, VALID, PreparedDataset
from intentbench.contracts.data import build_dataset


def a_dataset(n_users: int = 40, n_items: int = 30) -> PreparedDataset:
    random = np.random.default_rng(0)
    sequences = [
        (1 + random.permutation(n_items)[: random.integers(4, 12)]).tolist() for _ in range(n_users)
    ]
    return build_dataset("pairs", sequences, n_items)


def pairs_of(dataset: PreparedDataset, codes: tuple[int, ...]) -> set[tuple[int, int]]:
    owners = torch.repeat_interleave(torch.arange(dataset.n_users), dataset.offsets.diff())
    return {
        (int(user), int(item))
        for user, item, code in zip(owners, dataset.items, dataset.split, strict=True)
        if int(code) in codes
    }


def test_an_epoch_has_every_training_pair_once() -> None:
    data = a_dataset()
    loader = InteractionDataModule(data, batch_size=16).train_dataloader()
    seen = [
        (int(user), int(item))
        for batch in loader
        for user, item in zip(batch.users, batch.labels, strict=True)
    ]
    assert len(seen) == len(set(seen)) == int((data.split == TRAIN).sum())
    assert set(seen) == pairs_of(data, (TRAIN,))


def test_other_layouts_are_refused() -> None:
    with pytest.raises(RequestError, match="'pair', not 'all'"):
        InteractionDataModule(a_dataset(), layout="all")


@pytest.mark.parametrize("share", [0.05, 0.25, 1.0])
def test_added_pairs_are_new_and_as_many_as_asked_for(share: float) -> None:
    data = a_dataset()
    noisy = add_pairs(data, share)
    old, new = pairs_of(data, (TRAIN,)), pairs_of(noisy, (TRAIN,))
    held_out = pairs_of(data, (VALID, TEST))
    assert old < new
    assert len(new) == len(old) + round(share * len(old))
    assert len(noisy.items) == len(data.items) + round(share * len(old))  # none of them twice
    assert not (new - old) & held_out
    assert pairs_of(noisy, (VALID, TEST)) == held_out
    assert new == pairs_of(add_pairs(data, share), (TRAIN,))
    assert new != pairs_of(add_pairs(data, share, seed=1), (TRAIN,))


def test_added_pairs_are_uniform_over_what_is_free() -> None:
    data = a_dataset(n_users=6, n_items=12)
    known = pairs_of(data, (TRAIN, VALID, TEST))
    free = [(u, v) for u in range(6) for v in range(1, 13) if (u, v) not in known]
    counts = dict.fromkeys(free, 0)
    draws = 400
    for seed in range(draws):
        noisy = add_pairs(data, 0.2, seed)
        for pair in pairs_of(noisy, (TRAIN,)) - pairs_of(data, (TRAIN,)):
            counts[pair] += 1
    expected = sum(counts.values()) / len(free)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    # chi-square with len(free) - 1 degrees of freedom: mean len(free) - 1, variance twice that
    assert statistic < len(free) - 1 + 4 * (2 * len(free)) ** 0.5


def test_only_training_knows_of_added_pairs() -> None:
    data = a_dataset()
    clean = InteractionDataModule(data)
    noisy = InteractionDataModule(data, added_pairs=0.5)
    pairs = int((data.split == TRAIN).sum())
    assert len(noisy.training().items) == pairs + round(0.5 * pairs)
    assert sum(len(batch.users) for batch in noisy.train_dataloader()) == pairs + round(0.5 * pairs)
    for a, b in zip(clean.test_dataloader(), noisy.test_dataloader(), strict=True):
        assert torch.equal(a.masked, b.masked)
        assert torch.equal(a.target, b.target)


def test_more_pairs_than_there_are_is_refused() -> None:
    with pytest.raises(RequestError, match="too few are left"):
        add_pairs(a_dataset(), 10.0)
    with pytest.raises(RequestError, match="0 or more"):
        add_pairs(a_dataset(), -0.1)

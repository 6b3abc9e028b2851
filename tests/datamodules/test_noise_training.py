"""Noise in training rows: inputs change, targets do not."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch

from datamodules.errors import RequestError
from datamodules.noise import KINDS, Kind, Noise, perturb
from datamodules.noise_training import NoisySequenceDataModule
from datamodules.prepared import TRAIN, PreparedDataset
from datamodules.rows import Layout
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.sasrec import SASRec

V = 120
WINDOW = 12

Rows = dict[tuple[int, int], tuple[list[int], int]]
"""(user, key) of a row to its inputs and its last target."""


@pytest.fixture(scope="module")
def dataset() -> PreparedDataset:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 30, 60)
    return build_dataset("toy", [random.integers(1, V, n).tolist() for n in lengths], V)


def module(dataset: PreparedDataset, layout: Layout = "prefix") -> SequenceDataModule:
    return SequenceDataModule(dataset, layout=layout, window=WINDOW, batch_size=32)


def epoch_of(data: SequenceDataModule, epoch: int = 0) -> list[SequenceBatch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def rows_of(batches: Sequence[SequenceBatch]) -> Rows:
    found = {}
    for batch in batches:
        for row, (user, key) in enumerate(zip(batch.users, batch.key, strict=True)):
            inputs = batch.items[row, : batch.lengths[row]].tolist()
            last = int(batch.targets[row, batch.lengths[row] - 1])
            found[int(user), int(key)] = inputs, last
    return found


@pytest.mark.parametrize(
    ("layout", "kind"), [("all", "swap"), *(("prefix", kind) for kind in KINDS)]
)
def test_inputs_change_and_targets_do_not(
    dataset: PreparedDataset, layout: Layout, kind: Kind
) -> None:
    noisy = NoisySequenceDataModule(module(dataset, layout), Noise(kind, 0.3))
    clean, found = (rows_of(epoch_of(data)) for data in (module(dataset, layout), noisy))
    assert found.keys() == clean.keys()
    touched = 0
    for name, (inputs, target) in clean.items():
        changed, same = found[name]
        assert same == target
        budget = int(0.3 * len(inputs) + 1e-9)
        touched += 2 * (int(0.3 * len(inputs) / 2 + 1e-9)) if kind == "shuffle" else budget
        trained = dataset.items[dataset.offsets[name[0]] : dataset.offsets[name[0] + 1] - 2]
        new = [item for item in changed if item not in inputs]
        assert not set(new) & set(trained.tolist())
        match kind:
            case "swap":
                assert sum(a != b for a, b in zip(inputs, changed, strict=True)) == budget
            case "shuffle":
                assert sorted(changed) == sorted(inputs)
            case "delete":
                walk = iter(inputs)
                assert len(changed) == len(inputs) - budget
                assert all(item in walk for item in changed)
            case "insert":
                assert len(changed) == min(len(inputs) + budget, WINDOW)
                old = [item for item in changed if item not in new]
                assert not old or inputs[-len(old) :] == old
                assert len(new) <= budget
    inputs_seen = sum(len(inputs) for inputs, _ in clean.values())
    assert noisy.share == touched / inputs_seen > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_batches_are_well_formed(dataset: PreparedDataset, kind: Kind, padded: bool) -> None:
    clean = SequenceDataModule(
        dataset, layout="prefix", window=WINDOW, batch_size=32, pad_to_window=padded
    )
    for batch in epoch_of(NoisySequenceDataModule(clean, Noise(kind, 0.4, "stochastic"))):
        lengths = batch.lengths
        assert (lengths.diff() <= 0).all()
        assert batch.items.shape[1] == batch.groups[0][2]
        assert not padded or batch.groups == ((0, len(lengths), WINDOW),)
        real = torch.arange(batch.items.shape[1]) < lengths[:, None]
        assert torch.equal(batch.items > 0, real)
        flat = []  # (row, position) of each place in the joined groups
        for start, stop, width in batch.groups:
            flat += [(row, column) for row in range(start, stop) for column in range(width)]
            assert lengths[start] <= width
        assert stop == len(lengths)
        places = [flat[place] for place in batch.select]
        assert places == [(row, int(n) - 1) for row, n in enumerate(lengths)]
        assert batch.rows.tolist() == list(range(len(lengths)))
        assert torch.equal(batch.targets[torch.arange(len(lengths)), lengths - 1], batch.labels)
        assert (batch.targets > 0).sum() == len(lengths)


def test_noise_is_fresh_each_epoch_and_the_same_when_repeated(dataset: PreparedDataset) -> None:
    def rows(seed: int, epoch: int) -> Rows:
        data = NoisySequenceDataModule(module(dataset), Noise("swap", 0.3, seed=seed))
        return rows_of(epoch_of(data, epoch))

    assert rows(0, 1) == rows(0, 1)
    assert rows(0, 1) != rows(0, 2)
    assert rows(0, 1) != rows(1, 1)


def test_no_noise_is_no_change(dataset: PreparedDataset) -> None:
    for kind in get_args(Kind):
        noisy = NoisySequenceDataModule(module(dataset), Noise(kind, 0.0))
        assert rows_of(epoch_of(noisy)) == rows_of(epoch_of(module(dataset)))
        assert noisy.share == 0


def test_all_else_stays_clean(dataset: PreparedDataset) -> None:
    clean = module(dataset)
    noisy = NoisySequenceDataModule(clean, Noise("swap", 0.3))
    assert noisy.share == 0
    assert torch.equal(noisy.training().items, clean.training().items)
    for ours, theirs in zip(noisy.val_dataloader(), clean.val_dataloader(), strict=True):
        assert torch.equal(ours.items, theirs.items)


def test_held_out_items_may_come_in() -> None:
    """Else the items that never come in would tell what is held out."""
    data = build_dataset("toy", [[1, 2, 3, 4, 5, 6]] * 200, 6)
    noisy = NoisySequenceDataModule(module(data), Noise("swap", 1.0))
    assert set(data.items[data.split == TRAIN].tolist()) == {1, 2, 3, 4}
    seen = {item for inputs, _ in rows_of(epoch_of(noisy)).values() for item in inputs}
    assert seen == {5, 6}
    test, _ = perturb(build_dataset("toy", [[1, 2, 3, 4, 5, 6]] * 200, 7), Noise("swap", 1.0))
    assert set(test.items.tolist()) == {6, 7}  # the targets, and the only item outside


@pytest.mark.parametrize("layout", ["all", "pair"])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_that_would_show_targets_is_refused(
    dataset: PreparedDataset, layout: Layout, kind: Kind
) -> None:
    if (layout, kind) == ("all", "swap"):
        return
    with pytest.raises(RequestError, match=f"no '{kind}' with layout '{layout}'"):
        NoisySequenceDataModule(module(dataset, layout), Noise(kind, 0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_learns_from_noisy_rows(dataset: PreparedDataset, kind: Kind) -> None:
    model = SASRec(V, dataset.n_users, WINDOW, loss="ce", layout="prefix", width=8, heads=1)
    for batch in epoch_of(NoisySequenceDataModule(module(dataset), Noise(kind, 0.4)))[:2]:
        total = model.loss(batch)["total"]
        total.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(total)

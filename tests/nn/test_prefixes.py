"""Prefixes as index tables, against slices of lists."""

import pytest
import torch

from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, TrainingData
from intentbench.contracts.data import build_dataset
from intentbench.nn.prefixes import Prefixes
from intentbench.nn.transformer import SequenceEncoder

USERS = [[3, 1, 4, 1, 5, 9, 2], [6], [2, 5, 3, 5], [], [7, 5], [1, 2, 3, 4, 5]]
WINDOW = 3


def training() -> TrainingData:
    offsets = torch.tensor([0, *[len(user) for user in USERS]]).cumsum(0)
    items = torch.tensor([item for user in USERS for item in user])
    return TrainingData(items, offsets, n_items=9)


def expected() -> list[tuple[int, list[int], int]]:
    """(user, input, next item) of each prefix."""
    return [
        (number, user[max(0, k - WINDOW) : k], user[k])
        for number, user in enumerate(USERS)
        for k in range(1, len(user))
    ]


def test_prefixes_are_those_of_slices() -> None:
    prefixes = Prefixes(training(), WINDOW)
    items, lengths = prefixes.windows(torch.arange(len(prefixes)))
    found = [
        (user, [item for item in row if item != PAD], target)
        for user, row, target in zip(
            prefixes.users.tolist(), items.tolist(), prefixes.target.tolist(), strict=True
        )
    ]
    assert found == expected()
    assert lengths.tolist() == [len(row) for _, row, _ in expected()]


@pytest.mark.parametrize("targets", ["last", "every"])
def test_rows_of_a_batch_find_their_numbers(targets: str) -> None:
    sequences = [[*user, 8, 8] for user in USERS]  # two held-out events
    module = SequenceDataModule(
        build_dataset("x", sequences, 9),
        layout="prefix",
        window=WINDOW,
        targets=targets,  # type: ignore[arg-type]
    )
    prefixes = Prefixes(module.training(), WINDOW)
    batch = next(iter(module.train_dataloader()))
    numbers = prefixes.numbers(batch.users, batch.key)
    assert prefixes.target[numbers].equal(batch.labels)
    if targets == "every":  # "last" cuts the history of long users first
        items, lengths = prefixes.windows(numbers)
        assert items[:, : batch.items.shape[1]].equal(batch.items)
        assert lengths.equal(batch.lengths)


def test_partner_has_the_same_target_and_is_another_where_there_is_one() -> None:
    prefixes = Prefixes(training(), WINDOW)
    everyone = torch.arange(len(prefixes))
    seen: dict[int, set[int]] = {}
    for noise in torch.linspace(0, 0.999, 50):
        partner = prefixes.same_target(everyone, noise.expand(len(prefixes)))
        assert prefixes.target[partner].equal(prefixes.target)
        for own, other in enumerate(partner.tolist()):
            seen.setdefault(own, set()).add(other)
    targets = prefixes.target.tolist()
    for own, others in seen.items():
        alike = {other for other, target in enumerate(targets) if target == targets[own]}
        assert others == (alike - {own} or {own})


def test_partners_are_drawn_uniformly() -> None:
    prefixes = Prefixes(training(), WINDOW)
    own = next(n for n, target in enumerate(prefixes.target.tolist()) if target == 5)
    alike = int((prefixes.target == 5).sum()) - 1
    noise = torch.arange(1000) / 1000
    counts = torch.bincount(prefixes.same_target(torch.full((1000,), own), noise))
    assert counts[counts > 0].tolist() == pytest.approx([1000 / alike] * alike, abs=1)


def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    built = SequenceEncoder(9, WINDOW, "bert", width=4, blocks=2, heads=2, dropout=0.5).double()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return built.eval()


def test_encoding_keeps_the_order_asked_for() -> None:
    prefixes, model = Prefixes(training(), WINDOW), encoder()
    order = torch.tensor([8, 0, 5, 5, 2, 11])
    found = prefixes.encode(order, model.last_state)
    for number, state in zip(order.tolist(), found, strict=True):
        alone = model(torch.tensor([expected()[number][1]]))[0, -1]
        torch.testing.assert_close(state, alone, atol=1e-12, rtol=0)


def test_one_pass_gives_the_state_of_every_prefix() -> None:
    prefixes, model = Prefixes(training(), WINDOW), encoder()
    one_by_one = prefixes.encode(torch.arange(len(prefixes)), model.last_state)
    torch.testing.assert_close(prefixes.encode_all(model), one_by_one, atol=1e-12, rtol=0)

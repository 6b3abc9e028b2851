"""Features of events against a loop over events; the tables that know them; the item output."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from sklearn.metrics import mutual_info_score

from datamodules.events import build_events
from datamodules.prepared import TRAIN, PreparedDataset
from intentbench.contracts.data import planted_cycles
from intentbench.nn.event_features import (
    EventFeatures,
    MeanEmbedding,
    event_numbers,
    field_values,
    gap_scale,
)
from intentbench.nn.event_inputs import joined, know_events, label_shares
from intentbench.nn.item_output import ItemOutput

FIELDS = {"action": "behaviour", "category": "values:category:4"}


def _data() -> PreparedDataset:
    """Cycles whose events are minutes to hours apart, with ratings."""
    data = planted_cycles(12)
    torch.manual_seed(0)
    steps = torch.randint(0, 9000, data.items.shape).cumsum(0)
    ratings = torch.randint(1, 6, data.items.shape).float()
    return replace(data, timestamps=steps, ratings=ratings)


def test_features_are_the_parts_side_by_side() -> None:
    data = _data()
    known = know_events(data, FIELDS, False)
    module = EventFeatures(data.n_items, 3, [("single", 16), ("multi", 6)], 2)
    rows = torch.tensor([[0, 5, known.table.padding]])
    events = known.inputs(known.table.items[rows], rows)
    found = module(events.items, events.values, events.numbers)
    assert found.shape == (1, 3, module.width) == (1, 3, 3 + 2 * 2 + 2)
    single, multi = module.fields
    assert isinstance(multi, MeanEmbedding)
    assert data.actions is not None
    for place, row in enumerate([0, 5]):
        item = int(data.items[row])
        held = known.table.intents[1].labels[item].nonzero().flatten()
        mean = torch.stack([multi.labels.weight[label] for label in held.tolist()]).mean(0)
        own = single(data.actions[row].long() + 1)
        expected = torch.cat([module.items.weight[item], own, mean, known.numbers[row]])
        expected = (expected - expected.mean()) / (expected.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(found[0, place], expected)
    assert not found[0, 2].any(), "padding has no features"


def test_mean_embedding_of_several_and_of_none() -> None:
    module = MeanEmbedding(4, 3)
    holds = torch.tensor([[True, False, True, False], [False] * 4])
    weight = module.labels.weight
    expected = torch.stack([(weight[0] + weight[2]) / 2, torch.zeros(3)])
    torch.testing.assert_close(module(holds), expected)


def test_numbers_are_scaled_by_training_alone() -> None:
    data = _data()
    training = data.split == TRAIN
    events = build_events(data, {})
    assert events.gaps is not None
    numbers = event_numbers(events, gap_scale(events.gaps, training))
    assert data.ratings is not None
    torch.testing.assert_close(numbers[:-1, 0], data.ratings / 5)
    gaps = events.gaps[:-1].double().log1p()
    inside = sorted(gaps[training].tolist())
    scale = inside[round(0.99 * len(inside)) - 1]
    expected = (gaps / scale).clamp(max=1).float()
    torch.testing.assert_close(numbers[:-1, 1], expected)
    assert not numbers[-1].any()
    assert numbers.min() >= 0
    assert numbers.max() <= 1
    gaps = torch.where(_held_out(training), 10**8, events.gaps)
    later = event_numbers(replace(events, gaps=gaps), gap_scale(gaps, training))
    assert later[:-1][training].equal(numbers[:-1][training])


def _held_out(training: torch.Tensor) -> torch.Tensor:
    return torch.cat([~training, torch.tensor([False])])


def test_without_times_and_ratings_numbers_are_zero() -> None:
    data = replace(planted_cycles(3), timestamps=None)
    known = know_events(data, {"category": "values:category:4"}, False)
    assert not known.numbers.any()
    assert not known.times.any()
    assert not known.codes.any()


def test_field_values_look_up_codes_or_items() -> None:
    data = _data()
    single, multi = build_events(data, FIELDS).intents
    rows = torch.tensor([[3, 4]])
    items = data.items.long()[rows]
    assert field_values(single, items, rows).equal(single.codes[rows])
    assert field_values(multi, items, rows).equal(multi.labels[items])


def test_shares_of_labels_are_those_of_training() -> None:
    data = _data()
    training = data.split == TRAIN
    table = build_events(data, FIELDS)
    single, multi = (label_shares(field, table, training) for field in table.intents)
    assert data.actions is not None
    for label in range(3):
        expected = float((data.actions[training] == label).float().mean())
        assert float(single[label]) == pytest.approx(expected)
    held = table.intents[1].labels[data.items[training].long()]
    torch.testing.assert_close(multi, held.float().mean(0))


def _targets(data: PreparedDataset) -> torch.Tensor:
    """Numbers of the events that training predicts, by a loop over users."""
    users = pairwise(data.offsets.tolist())
    found = [row for begin, end in users for row in range(begin + 1, end)]
    return torch.tensor([row for row in found if data.split[row] == TRAIN])


def test_shuffled_labels_are_as_many_but_of_other_events() -> None:
    data = _data()
    plain, other = (know_events(data, FIELDS, shuffled) for shuffled in (False, True))
    rows = _targets(data)
    for before, after in zip(plain.table.intents, other.table.intents, strict=True):
        own, dealt = plain.labels(before, rows), other.labels(after, rows)
        assert not own.equal(dealt)
        if before.kind == "single":
            assert own.bincount().equal(dealt.bincount())
        else:
            assert own.sum(0).equal(dealt.sum(0))
        assert before.codes.equal(after.codes), "inputs stay"
        assert before.labels.equal(after.labels), "and so do the labels that a test asks for"
    assert plain.taught is None
    assert other.taught is not None
    held_out = torch.ones(len(data.items) + 1, dtype=torch.bool)
    held_out[rows] = False
    assert other.taught[held_out].equal(held_out.nonzero().flatten()), "all others stay"
    assert other.taught[rows].sort().values.equal(rows)


def _told_by_item(items: torch.Tensor, labels: torch.Tensor) -> float:
    """Mutual information (nats) of an event's item and its most telling label."""
    return max(
        float(mutual_info_score(items.numpy(), held.numpy())) for held in labels.T if held.any()
    )


def test_shuffled_labels_cannot_be_told_from_the_item() -> None:
    """Several labels are those of an item: dealt out to items they could be learned by heart."""
    data = planted_cycles(300)
    fields = {"category": "values:category:4"}
    rows = _targets(data)
    items = data.items[rows].long()
    plain, other = (know_events(data, fields, shuffled) for shuffled in (False, True))
    own, dealt = (known.labels(known.table.intents[0], rows) for known in (plain, other))
    sure, chance = _told_by_item(items, own), _told_by_item(items, dealt)
    assert sure > 0.3
    # of n events and independent labels, I is (V - 1) / 2n in expectation
    assert chance < 3 * data.n_items / (2 * len(rows)) < sure / 5
    for label in range(4):  # nor does any item have a label much more often than all events
        share = float(dealt[:, label].float().mean())
        each = [float(dealt[items == item, label].float().mean()) for item in set(items.tolist())]
        assert max(each) < 2 * share


def test_joined_flattens_groups() -> None:
    wide, narrow = torch.arange(6).view(2, 3), torch.arange(2).view(2, 1)
    assert joined([wide, narrow]).tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert joined([wide]).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("tied", [False, True])
def test_item_output_scores_as_a_layer(tied: bool) -> None:
    items = torch.nn.Embedding(8, 3)
    output = ItemOutput(7, 5, items if tied else None)
    states = torch.randn(4, 5)
    found = output(states) @ output.table().T
    if tied:
        assert output.map is not None
        expected = output.map(states) @ items.weight.T
    else:
        assert output.bias is not None
        torch.nn.init.normal_(output.bias)
        found = output(states) @ output.table().T
        expected = states @ output.items.weight.T + output.bias
    torch.testing.assert_close(found, expected)

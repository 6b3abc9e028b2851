"""Under noise a label keeps its number, which trained embeddings and heads know it by."""

from pathlib import Path

import pytest
import torch

from datamodules.events import build_events
from datamodules.noise import KINDS, Noise, NoisyDataset, perturb, without_noise
from datamodules.prepared import TRAIN, PreparedDataset
from intentbench.nn.event_inputs import know_events
from tests.datamodules.toy_events import prepared, random_log

BY_ITEM = ("values:genre:3", "value:genre:3", "quantile:year:3")
SEEDS = range(12)


def _pair(seed: int, kind: str, folder: Path) -> tuple[PreparedDataset, NoisyDataset]:
    data = prepared(random_log(seed), folder)
    return data, perturb(data, Noise(kind, 0.6, "stochastic", seed))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_has_the_label_that_it_has_without_noise(kind: str, tmp_path: Path) -> None:
    moved = 0
    for seed in SEEDS:
        data, noisy = _pair(seed, kind, tmp_path)
        assert without_noise(noisy) is data
        moved += not noisy.items.equal(data.items)
        for rule in BY_ITEM:
            clean = build_events(data, {"only": rule}).intents[0]
            found = build_events(noisy, {"only": rule}).intents[0]
            assert found.names == clean.names
            if clean.kind == "multi":
                assert found.labels.equal(clean.labels)
                continue
            of_item = dict(zip(data.items.tolist(), clean.codes.tolist(), strict=False))
            for item, code in zip(noisy.items.tolist(), found.codes.tolist(), strict=False):
                assert of_item.get(item, code) == code
    assert moved > 6, "noise that moves nothing shows nothing"


def test_an_items_age_is_that_of_the_log_without_noise(tmp_path: Path) -> None:
    for seed in SEEDS:
        data, noisy = _pair(seed, "swap", tmp_path)
        first: dict[int, int] = {}
        assert data.timestamps is not None
        log = data.timestamps.tolist()
        for item, time in zip(data.items.tolist(), log, strict=True):
            first[item] = min(time, first.get(item, time))
        field = build_events(noisy, {"only": "first_seen:3600,86400"}).intents[0]
        events = zip(noisy.items.tolist(), log, field.codes.tolist(), strict=False)
        for item, time, code in events:  # a swap leaves times
            if item not in first:
                continue
            since = time - first[item]
            old = first[item] <= min(log) + 86400
            expected = 3 if old else int(since > 3600) + int(since > 86400)
            assert code == expected + 1


def test_gaps_are_scaled_as_without_noise(tmp_path: Path) -> None:
    compared = 0
    for seed in SEEDS:
        data, noisy = _pair(seed, "delete", tmp_path)
        if not (data.split == TRAIN).any():
            continue
        clean, found = know_events(data, {}, False), know_events(noisy, {}, False)
        scales = []
        for known in (clean, found):
            assert known.table.gaps is not None
            gaps = known.table.gaps.float().log1p()
            inside = (gaps > 0) & (known.numbers[:, 1] < 1)
            scales.append((gaps / known.numbers[:, 1])[inside])
        if all(map(len, scales)):
            compared += 1
            torch.testing.assert_close(scales[1].max(), scales[0].min())
    assert compared > 3


def test_noise_in_noise_is_counted_where_there_is_none(tmp_path: Path) -> None:
    data, noisy = _pair(0, "swap", tmp_path)
    assert perturb(noisy, Noise("insert", 0.5))[0].clean is data

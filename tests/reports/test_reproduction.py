"""A trial beside the one that it repeats: counted target by target."""

from dataclasses import replace

import numpy as np
import pytest

from intentbench.reports.cells import Result
from intentbench.reports.reproduction import compare_trials, render_reproduction
from tests.reports.fake_runs import GRU, fake_ranks, fake_record


@pytest.fixture
def published() -> Result:
    ranks = fake_ranks(GRU, "beauty", 0, 50)
    return fake_record(GRU, "beauty", 0, ranks["rank"]), dict(ranks)


def test_the_order_of_targets_does_not_matter(published: Result) -> None:
    record, ranks = published
    assert ranks is not None
    mixed = np.random.default_rng(0).permutation(50)
    again = {name: array[mixed] for name, array in ranks.items()}
    known = {**ranks, "popularity": ranks["key"]}  # an archive may hold more than a trial
    found = compare_trials((record, known), (record, again))
    assert found.equal
    assert found.targets == 50
    assert "equal, all 50" in render_reproduction(found)


def test_other_ranks_are_counted(published: Result) -> None:
    record, ranks = published
    assert ranks is not None
    rank = ranks["rank"].copy()
    rank[[3, 30, 31]] += 1
    again = replace(record, metrics={**record.metrics, "mrr": record.metrics["mrr"] + 0.01})
    found = compare_trials(published, (again, {**ranks, "rank": rank}))
    assert found.differing == 3
    assert not found.equal
    text = render_reproduction(found)
    assert "3 of 50 differ" in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("mrr")] == [
        "+1.00e-02"
    ]


def test_ranks_under_noise_count(published: Result) -> None:
    record, ranks = published
    assert ranks is not None
    noise = np.stack([ranks["rank"], ranks["rank"] + 1])
    other = noise.copy()
    other[1, 7] += 5
    found = compare_trials((record, {**ranks, "noise": noise}), (record, {**ranks, "noise": other}))
    assert (found.targets, found.differing) == (150, 1)
    assert compare_trials((record, {**ranks, "noise": noise}), published).differing is None


def test_other_targets_are_no_reproduction(published: Result) -> None:
    record, ranks = published
    assert ranks is not None
    found = compare_trials(published, (record, {**ranks, "key": ranks["key"] + 1}))
    assert found.differing is None
    assert not found.equal
    assert "other targets" in render_reproduction(found)
    with pytest.raises(ValueError, match="must have ranks"):
        compare_trials(published, (record, None))


def test_what_else_differs_is_said(published: Result) -> None:
    record, ranks = published
    environment = {**record.environment, "packages": {"torch": "2.14.0", "numpy": "2.4.6"}}
    environment |= {"threads": 2, "commit": "other"}
    again = replace(record, trial="other", code="newer", environment=environment)
    text = render_reproduction(compare_trials(published, (again, ranks)))
    assert f"trial    published {record.trial}, here other: not the same request" in text
    assert "code     published c0de, here newer" in text
    machine = [line for line in text.splitlines() if line.startswith("machine")]
    assert machine == [
        "machine  lightning: published 2.6.6, here none",
        "machine  torch: published 2.13.0, here 2.14.0",
        "machine  threads: published 1, here 2",
    ]
    text = render_reproduction(compare_trials(published, published))
    assert "machine  the same versions and machine" in text

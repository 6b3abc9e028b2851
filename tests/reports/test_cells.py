from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.metrics.formulas import ndcg
from intentbench.reports.cells import Result, build_tables, read_results
from tests.reports.fake_runs import (
    GRU,
    KNN,
    ORACLE,
    SASREC,
    fake_ranks,
    fake_record,
    write_failure,
    write_runs,
    write_trial,
)


def result(seed: int = 0, **changes: Any) -> Result:
    ranks = fake_ranks(SASREC, "beauty", seed, 20)
    record = fake_record(SASREC, "beauty", seed, ranks["rank"])
    return replace(record, **changes), dict(ranks)


def test_cells_hold_seeds_by_users(tmp_path: Path) -> None:
    write_runs(tmp_path, [SASREC, KNN], ["toys", "beauty"], seeds=(2, 0))
    tables = build_tables(read_results(tmp_path))
    assert [table.dataset for table in tables] == ["beauty", "toys"]
    knn, sasrec = tables[1].cells
    assert (knn.label, knn.ranks.shape, knn.deterministic) == ("item_knn", (1, 300), True)
    assert [record.seed for record in sasrec.records] == [0, 2]
    expected = ndcg(fake_ranks(SASREC, "toys", 2, 300)["rank"], 10)
    assert np.array_equal(tables[1].values(sasrec.ranks, "ndcg@10")[1], expected)


def test_cells_sort_ranks_by_user_and_key() -> None:
    record, ranks = result()
    assert ranks is not None
    order = np.random.default_rng(0).permutation(20)
    other = replace(record, label="other"), {name: v[order] for name, v in ranks.items()}
    (table,) = build_tables([(record, ranks), other])
    assert np.array_equal(table.cells[0].ranks, table.cells[1].ranks)


def test_users_with_several_targets_are_one_unit_each(tmp_path: Path) -> None:
    record = write_trial(tmp_path, KNN, "beauty", 0, n_users=40, targets_per_user=3)
    (table,) = build_tables(read_results(tmp_path))
    values = table.values(table.cells[0].ranks, "ndcg@10")
    assert (table.n_users, len(table.user), values.shape) == (40, 120, (1, 40))
    assert values.mean() == pytest.approx(record.metrics["ndcg@10"])
    ranks = fake_ranks(KNN, "beauty", 0, 40, 3)
    by_hand = [ndcg(ranks["rank"][ranks["user"] == user], 10).sum() / 3 for user in range(40)]
    assert values[0] == pytest.approx(by_hand)


def test_failed_trials_are_kept_apart(tmp_path: Path) -> None:
    write_trial(tmp_path, GRU, "beauty", 0)
    write_failure(tmp_path, GRU, "beauty", 1, "it broke")
    (table,) = build_tables(read_results(tmp_path))
    (cell,) = table.cells
    assert [record.seed for record in cell.records] == [0]
    assert [record.reason for record in cell.failed] == ["it broke"]


def test_a_failure_that_was_mended_with_other_arguments_is_left_out() -> None:
    failed, _ = result(0, status="failed", trial="before", arguments={"loss": "bce1"})
    ((cell,),) = (table.cells for table in build_tables([(failed, None), result(0)]))
    assert [record.trial for record in cell.records] != ["before"]
    assert cell.failed == ()
    with pytest.raises(RequestError, match="differ in arguments"):  # of another seed it stands
        build_tables([(replace(failed, seed=1), None), result(0)])


def test_oracle_is_a_ceiling_and_deterministic(tmp_path: Path) -> None:
    write_trial(tmp_path, ORACLE, "beauty", 0)
    (cell,) = build_tables(read_results(tmp_path))[0].cells
    assert cell.is_oracle
    assert cell.deterministic


def test_seeds_that_change_nothing_are_noticed() -> None:
    record, ranks = result()
    twin = replace(record, seed=1), ranks
    assert build_tables([(record, ranks), twin])[0].cells[0].seed_changes_nothing
    assert not build_tables([result(0), result(1)])[0].cells[0].seed_changes_nothing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_fingerprint": "other"}, "differ in prepared data: 8858c33fa702ccfe and other"),
        (
            {"protocol": {"split": "leave_one_out", "mask_history": False}},
            "differ in protocol: .*'mask_history': True.*'mask_history': False",
        ),
        ({"arguments": {"loss": "bce1", "layout": "all"}}, "differ in arguments: .*'ce'.*'bce1'"),
        ({"training": {"max_epochs": 1}}, "differ in training"),
        ({"metrics": {"ndcg@10": 0.9}}, "recorded ndcg@10 0.900000, its ranks give"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build_tables([result(0), result(1, **changes)])


def test_a_seed_that_is_there_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="seed 0 is there twice"):
        build_tables([result(0), result(0, trial="another")])


def test_window_may_differ_between_rows_but_not_within_one() -> None:
    narrow = {"split": "leave_one_out", "mask_history": True, "candidates": "all items"}
    build_tables([result(0), result(1, label="other", protocol=narrow | {"window": 5})])
    with pytest.raises(RequestError, match="differ in data"):
        build_tables([result(0), result(1, data={"window": 5})])


def test_texts_may_differ_between_rows_but_not_within_one() -> None:
    own = result()[0].protocol
    ours, theirs = (own | {"texts": source} for source in ("a (texts, 01)", "a (texts, 02)"))
    build_tables(
        [
            result(0, protocol=ours),
            result(1, label="other", protocol=theirs),
            result(2, label="none"),
        ]
    )
    with pytest.raises(RequestError, match=r"differ in texts: .*a \(texts, 01\).* 02"):
        build_tables([result(0, protocol=ours), result(1, protocol=theirs)])


@pytest.mark.parametrize("keep", [slice(1, None), [0, *range(19)]])
def test_other_or_repeated_targets_are_refused(keep: slice | list[int]) -> None:
    record, ranks = result(1, metrics={})
    assert ranks is not None
    wrong = record, {name: values[keep] for name, values in ranks.items()}
    with pytest.raises(RequestError, match=r"ranks other targets|is ranked twice"):
        build_tables([result(0), wrong])


def test_no_ranks_at_all_are_refused() -> None:
    record, ranks = result(metrics={})
    assert ranks is not None
    with pytest.raises(RequestError, match="no ranks at all"):
        build_tables([(record, {name: values[:0] for name, values in ranks.items()})])

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.reports.archive import write_archive
from intentbench.reports.gate import GateCell, GateReport, check_runs
from intentbench.reports.gate_baseline import (
    read_baseline,
    read_tables,
    update_baseline,
    write_baseline,
)
from intentbench.reports.plan import Plan
from intentbench.results.external import DEPTH, EXTERNAL
from intentbench.stats.gate import Verdict, judge_margin
from tests.reports.fake_runs import (
    GRU,
    KNN,
    ORACLE,
    POPULARITY,
    SASREC,
    SASREC_BCE,
    FakeModel,
    write_failure,
    write_runs,
    write_trial,
)

PASS, WORSE, OPEN = Verdict.PASS, Verdict.WORSE, Verdict.CANNOT_TELL
STEADY = replace(SASREC, seed_spread=0.002)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_runs(root, [POPULARITY, STEADY, ORACLE], ["beauty", "toys"], n_users=1_500)
    return root


@pytest.fixture(scope="module")
def baseline(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "gate.npz"
    update_baseline(runs, path)
    return path


def new_runs(
    root: Path,
    models: Sequence[FakeModel],
    datasets: Sequence[str] = ("beauty", "toys"),
    seeds: Sequence[int] = (3, 4, 5),
) -> Path:
    write_runs(root, models, datasets, seeds, n_users=1_500)
    return root


def cells_of(report: GateReport) -> dict[tuple[str, str], GateCell]:
    return {(cell.dataset, cell.label): cell for cell in report.cells}


def test_the_same_runs_pass_at_once(runs: Path, baseline: Path) -> None:
    report = check_runs(runs, baseline, margin=0.0001)
    assert report.verdict is PASS
    assert len(report.cells) == 4
    assert all(cell.test.unchanged for cell in report.cells)
    assert report.unjudged == ()
    assert report.n_tests == 0


def test_other_seeds_of_the_same_models_pass(tmp_path: Path, baseline: Path) -> None:
    report = check_runs(new_runs(tmp_path, [POPULARITY, STEADY]), baseline)
    found = cells_of(report)["beauty", STEADY.label]
    assert (report.verdict, found.verdict) == (PASS, PASS)
    assert (found.seeds_new, found.seeds_base) == (3, 3)
    assert not found.test.unchanged
    assert cells_of(report)["toys", "popularity"].test.unchanged
    assert report.n_tests == 2


def test_a_weaker_model_is_worse(tmp_path: Path, runs: Path, baseline: Path) -> None:
    weak = replace(STEADY, strength=STEADY.strength - 0.5)
    new_runs(tmp_path, [POPULARITY, STEADY], ["beauty"])
    new_runs(tmp_path, [POPULARITY, weak], ["toys"])
    report = check_runs(tmp_path, baseline)
    found = {place: cell.verdict for place, cell in cells_of(report).items()}
    assert found.pop(("toys", STEADY.label)) is WORSE
    assert set(found.values()) == {PASS}
    assert report.verdict is WORSE
    # The figures are those of the test on the values that the ranks give.
    (old,) = (table for table in read_baseline(baseline) if table.dataset == "toys")
    new = {table.dataset: table for table in read_baseline(tmp_path)}["toys"]
    after, before = (
        table.values({cell.label: cell for cell in table.cells}[STEADY.label].ranks, "ndcg@10")
        for table in (new, old)
    )
    assert cells_of(report)["toys", STEADY.label].test == judge_margin(after, before, 0.05)


def test_any_metric_can_be_tested(tmp_path: Path, baseline: Path) -> None:
    new_runs(tmp_path, [POPULARITY, STEADY])
    report = check_runs(tmp_path, baseline, metric="hit_rate@20")
    assert {cell.metric for cell in report.cells} == {"hit_rate@20"}
    with pytest.raises(RequestError, match="no metric 'ndcg'"):
        check_runs(tmp_path, baseline, metric="ndcg")


def test_single_seeds_cannot_tell(tmp_path: Path) -> None:
    write_runs(tmp_path / "old", [STEADY], seeds=(0,))
    write_runs(tmp_path / "new", [STEADY], seeds=(1,))
    (cell,) = check_runs(tmp_path / "new", tmp_path / "old").cells
    assert cell.verdict is OPEN
    assert "nothing is known of seeds" in cell.reason


def test_a_failed_seed_keeps_a_cell_from_passing(tmp_path: Path, baseline: Path) -> None:
    new_runs(tmp_path, [POPULARITY, STEADY])
    write_failure(tmp_path, STEADY, "toys", 6, "NonFiniteScoresError: nan\nscores")
    report = check_runs(tmp_path, baseline)
    cell = cells_of(report)["toys", STEADY.label]
    assert cell.verdict is report.verdict is OPEN
    assert cell.reason == "seed 6 failed: `NonFiniteScoresError: nan scores`"


def test_new_rows_are_named_and_not_judged(tmp_path: Path, runs: Path, baseline: Path) -> None:
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    new_runs(tmp_path, [GRU], ["toys"])
    report = check_runs(tmp_path, baseline)
    assert report.unjudged == (("toys", "gru4rec"),)
    assert report.verdict is PASS


def test_a_row_that_has_vanished_never_passes(tmp_path: Path, runs: Path, baseline: Path) -> None:
    with pytest.raises(RequestError, match=r"no result of toys/popularity, toys/sasrec_ce_all,"):
        check_runs(runs / "beauty", baseline)
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "toys" / "popularity")
    write_failure(tmp_path, POPULARITY, "toys", 0, "killed")
    with pytest.raises(RequestError, match=r"toys/popularity \(failed: killed\)"):
        check_runs(tmp_path, baseline)
    with pytest.raises(RequestError, match="no such folder of runs"):
        check_runs(tmp_path / "nowhere", baseline)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_fingerprint": "other"}, "prepared data: other and"),
        (
            {"protocol": {"split": "leave_one_out", "mask_history": False}},
            "protocol: candidates None and all items, mask_history False and True;",
        ),
    ],
)
def test_other_questions_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_trial(tmp_path / "old", KNN, "beauty", 0)
    write_trial(tmp_path / "new", KNN, "beauty", 0, **changes)
    update_baseline(tmp_path / "old", tmp_path / "gate.npz")
    with pytest.raises(RequestError, match=words):
        check_runs(tmp_path / "new", tmp_path / "gate.npz")


def test_other_targets_are_refused(tmp_path: Path) -> None:
    write_trial(tmp_path / "old", KNN, "beauty", 0, n_users=300)
    write_trial(tmp_path / "new", KNN, "beauty", 0, n_users=299)
    with pytest.raises(RequestError, match="differ on beauty in test targets"):
        check_runs(tmp_path / "new", tmp_path / "old")


def test_published_ranks_serve_on_either_side(tmp_path: Path, runs: Path, baseline: Path) -> None:
    ranks = tmp_path / "ranks" / "board"
    write_archive(ranks, "board", Plan(), read_tables(runs))
    fresh = new_runs(tmp_path / "fresh", [POPULARITY, STEADY])
    assert check_runs(fresh, ranks).cells == check_runs(fresh, baseline).cells
    assert check_runs(ranks, baseline).verdict is PASS


def test_a_baseline_holds_what_was_accepted(runs: Path, baseline: Path, tmp_path: Path) -> None:
    restored = {table.dataset: table for table in read_baseline(baseline)}
    for table in read_baseline(runs):
        other = restored[table.dataset]
        assert np.array_equal(table.user, other.user)
        assert np.array_equal(table.key, other.key)
        assert [cell.label for cell in other.cells] == ["popularity", STEADY.label]  # no ceiling
        for cell in other.cells:
            source = {one.label: one for one in table.cells}[cell.label]
            assert np.array_equal(cell.ranks, source.ranks)
            assert cell.deterministic == source.deterministic
            assert [r.seed for r in cell.records] == [r.seed for r in source.records]
    write_baseline(tmp_path / "again.npz", restored.values())
    assert (tmp_path / "again.npz").read_bytes() == baseline.read_bytes()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_lists_that_are_too_short_for_a_metric_are_not_judged(tmp_path: Path, kind: str) -> None:
    card = {"deterministic": True, DEPTH: 22}
    write_trial(tmp_path / "runs", KNN, "beauty", 0, method=EXTERNAL, card=card)
    baseline = tmp_path / "runs"
    if kind == "file":
        baseline = tmp_path / "gate.npz"
        update_baseline(tmp_path / "runs", baseline)
        whole = write_trial(tmp_path / "new", KNN, "beauty", 0)
        assert whole.method != EXTERNAL
    fresh = tmp_path / ("new" if kind == "file" else "runs")
    assert check_runs(fresh, baseline, metric="ndcg@22").verdict is PASS
    for metric in ("ndcg@40", "mrr"):
        with pytest.raises(RequestError, match=f"item_knn .* too short to give {metric}$"):
            check_runs(fresh, baseline, metric=metric)
        with pytest.raises(RequestError, match=f"too short to give {metric}$"):
            update_baseline(tmp_path / "runs", tmp_path / "other.npz", metric)
    assert not (tmp_path / "other.npz").exists()


def test_a_baseline_says_nothing_of_the_machine(baseline: Path) -> None:
    with np.load(baseline, allow_pickle=False) as arrays:
        text = arrays["meta"].tobytes().decode()
    for word in ("Some CPU", "Linux", "0123456789abcdef", "2026-03", "environment"):
        assert word not in text


def test_update_tells_what_was_accepted(tmp_path: Path, runs: Path) -> None:
    path = tmp_path / "gate.npz"
    first = update_baseline(runs / "toys", path)
    assert [(one.label, one.old) for one in first] == [("popularity", None), (STEADY.label, None)]
    other = new_runs(tmp_path / "other", [STEADY, GRU], ["toys"])
    gru, gone, sasrec = update_baseline(other, path)  # by label
    assert (gone.old, gone.new) == (first[0].new, None)
    assert (gru.old, gru.seeds) == (None, 3)
    assert sasrec.old == first[1].new
    assert sasrec.new != sasrec.old
    assert check_runs(other, path).verdict is PASS


def test_update_refuses_what_is_no_baseline(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(RequestError, match="a folder; --update writes a single file"):
        update_baseline(runs, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no finished trial"):
        update_baseline(tmp_path / "empty", tmp_path / "gate.npz")
    write_runs(tmp_path / "failed", [KNN])
    write_failure(tmp_path / "failed", SASREC_BCE, "beauty", 1, "killed")
    with pytest.raises(RequestError, match=r"beauty/sasrec_bce1 \(seed 1\)"):
        update_baseline(tmp_path / "failed", tmp_path / "gate.npz")
    assert not (tmp_path / "gate.npz").exists()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _encrypt(path: Path) -> None:
    """Claims that the first entry is encrypted, which zipfile answers by RuntimeError."""
    content = bytearray(path.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def _replace(path: Path) -> None:
    path.write_text("not a baseline")


def _forget(path: Path) -> None:
    np.savez(path, user=np.arange(3))


def _other_format(path: Path) -> None:
    _rewrite(path, b'"format": 1', b'"format": 9')


def _rewrite(path: Path, old: bytes, new: bytes) -> None:
    with np.load(path) as arrays:
        content = dict(arrays)
    meta = content["meta"].tobytes()
    assert old in meta
    content["meta"] = np.frombuffer(meta.replace(old, new), dtype=np.uint8)
    np.savez_compressed(path, **content)


@pytest.mark.parametrize("damage", [_truncate, _flip, _encrypt, _replace, _forget, _other_format])
def test_a_damaged_baseline_is_refused(
    tmp_path: Path, runs: Path, baseline: Path, damage: Callable[[Path], None]
) -> None:
    path = Path(shutil.copy(baseline, tmp_path / "gate.npz"))
    damage(path)
    with pytest.raises(RequestError, match=r"gate.npz: no readable baseline"):
        check_runs(runs, path)
    with pytest.raises(RequestError, match="remove it"):
        update_baseline(runs, path)


def test_ranks_that_were_tampered_with_are_refused(
    tmp_path: Path, runs: Path, baseline: Path
) -> None:
    path = Path(shutil.copy(baseline, tmp_path / "gate.npz"))
    with np.load(path) as arrays:
        content = dict(arrays)
    content["0.1.rank"] = content["0.1.rank"] + 5
    np.savez_compressed(path, **content)
    with pytest.raises(RequestError, match=r"gate.npz: beauty: sasrec_ce_all, seed 0: recorded"):
        check_runs(runs, path)


def test_a_baseline_that_is_not_there_is_refused(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(RequestError, match="no such baseline; --update writes one"):
        check_runs(runs, tmp_path / "gate.npz")

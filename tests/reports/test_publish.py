import csv
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.cli import main
from intentbench.reports.archive import is_archive, read_archive, restore_trials
from intentbench.reports.cells import read_results
from intentbench.reports.exports import FIELDS
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish, publish_results, render
from intentbench.reports.verify import verify_boards
from intentbench.results.store import read_record, save_ranks, trial_folder, write_record
from intentbench.stats.contrast import contrast
from intentbench.stats.family import compare_all
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

GOLDEN = Path(__file__).with_name("golden")
PLAN = Plan(
    title="A board that was made up",
    reference="sasrec_ce_all",
    datasets=("beauty", "synthetic"),
    seeds=(0, 1, 2),
    command="intentbench run benchmarks/board.yaml",
    code={"sasrec_bce1": "newer"},
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several labels and seeds, one trial failed, one row missing."""
    root = tmp_path_factory.mktemp("runs")
    write_runs(root, [POPULARITY, KNN, SASREC, SASREC_BCE], ["beauty"])
    write_trial(root, GRU, "beauty", 0)
    write_trial(root, GRU, "beauty", 2)
    write_failure(root, GRU, "beauty", 1, "NonFiniteScoresError: nan | in\nscores")
    write_runs(root, [POPULARITY, KNN, SASREC, ORACLE], ["synthetic"])
    write_failure(root, SASREC_BCE, "synthetic", 0, "killed for memory")
    return root


@pytest.fixture(scope="module")
def out(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboards")
    publish(runs, "board", folder, PLAN)
    return folder


@pytest.mark.parametrize("name", ["board.md", "board.csv"])
def test_pages_are_the_golden_ones(out: Path, name: str) -> None:
    """To accept a change: copy the new page over the old one, and read the difference."""
    assert (out / name).read_text("utf-8") == (GOLDEN / name).read_text("utf-8")


def test_published_ranks_alone_give_the_same_bytes(out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    pages = render(out / "ranks" / "board", tmp_path / "elsewhere")
    published = {path.name for path in out.iterdir() if path.is_file()}
    assert {page.name for page in pages} == published >= {"board.csv", "board.json", "board.md"}
    for page in pages:
        assert page.read_bytes() == (out / page.name).read_bytes()


def test_publishing_again_changes_no_byte(out: Path, runs: Path, tmp_path: Path) -> None:
    publish(runs, "board", tmp_path, PLAN)
    ours = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    theirs = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert ours == theirs


def test_published_ranks_are_small_and_complete(out: Path, runs: Path) -> None:
    folder = out / "ranks" / "board"
    assert is_archive(folder)
    assert not is_archive(runs)
    with np.load(folder / "beauty" / "sasrec_ce_all.npz", allow_pickle=False) as file:
        assert (file["rank"].dtype, file["rank"].shape) == (np.uint16, (3, 300))
    name, plan, results = read_archive(folder)
    assert (name, plan) == ("board", PLAN)
    found = {(r.dataset, r.label, r.seed): (r, ranks) for r, ranks in results}
    for record, ranks in read_results(runs):
        archived, archived_ranks = found.pop((record.dataset, record.label, record.seed))
        assert archived == record
        assert (ranks is None) == (archived_ranks is None)
        if ranks is not None and archived_ranks is not None:
            for part in ("user", "key", "rank"):
                assert np.array_equal(ranks[part], archived_ranks[part])
    assert not found


def test_published_trials_come_back_as_runs(out: Path, runs: Path, tmp_path: Path) -> None:
    archive, back = out / "ranks" / "board", tmp_path / "runs"
    first = next(iter(read_results(runs)))[0]
    count = len(read_results(runs))
    kept = trial_folder(back, first.dataset, first.label, first.trial)
    write_record(kept, replace(first, finished="meanwhile"))
    save_ranks(kept, np.array([0]), np.array([4]), np.array([1]))
    assert restore_trials(archive, back) == (count - 1, 1)
    assert restore_trials(archive, back) == (0, count)
    assert read_record(kept) == replace(first, finished="meanwhile")
    shutil.rmtree(kept)
    restore_trials(archive, back)
    publish(back, "board", tmp_path, PLAN)
    for page in ("board.md", "board.csv", "board.json"):
        assert (tmp_path / page).read_bytes() == (out / page).read_bytes()


def test_trials_whose_ranks_do_not_give_their_metrics_do_not_come_back(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, back = tmp_path / "board", tmp_path / "runs"
    shutil.copytree(out / "ranks" / "board", archive)
    path = archive / "beauty" / "item_knn.npz"
    with np.load(path) as file:
        rank = file["rank"].copy()
    rank[0, :50] = 1
    np.savez_compressed(path, rank=rank)
    assert main(["import", str(archive), "--out", str(back)]) == 2
    streams = capsys.readouterr()
    (line,) = streams.err.splitlines()
    assert f"{archive}: beauty: item_knn, seed 0: recorded hit_rate@5 " in line
    assert line.endswith("nothing was restored")
    assert not streams.out
    assert not back.exists()


def test_a_row_that_is_gone_leaves_no_ranks(runs: Path, tmp_path: Path) -> None:
    publish(runs, "board", tmp_path)
    publish(runs / "beauty" / "item_knn", "board", tmp_path)
    kept = sorted(p.name for p in (tmp_path / "ranks" / "board").rglob("*") if p.is_file())
    assert kept == ["beauty.npz", "board.json", "history.json", "item_knn.json", "item_knn.npz"]
    assert list(tmp_path.rglob(".*")) == []


def test_a_picture_that_is_not_shown_any_more_is_removed(runs: Path, tmp_path: Path) -> None:
    publish(runs, "board", tmp_path)
    other = tmp_path / "board.mine.svg"
    other.write_text("not of the page")
    assert (tmp_path / "board.beauty.intervals.svg").is_file()
    publish(runs / "beauty" / "item_knn", "board", tmp_path)
    assert [path.name for path in tmp_path.glob("*.svg")] == [other.name]
    other.unlink()
    assert all(not check.findings for check in verify_boards(tmp_path))


def test_large_catalogues_keep_their_ranks(tmp_path: Path) -> None:
    record = write_trial(tmp_path / "runs", KNN, "beauty", 0, metrics={})
    folder = tmp_path / "runs" / "beauty" / "item_knn" / record.trial
    ranks = np.arange(1, 301) * 1_000
    np.savez(folder / "ranks.npz", user=np.arange(300), key=np.full(300, 4), rank=ranks)
    publish(tmp_path / "runs", "board", tmp_path)
    _, _, [(_, archived)] = read_archive(tmp_path / "ranks" / "board")
    assert archived is not None
    assert np.array_equal(archived["rank"], ranks)


def test_csv_columns_and_significance(out: Path, runs: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((out / "board.csv").read_text("utf-8"))))
    assert tuple(lines[0]) == FIELDS
    beauty = [line for line in lines if line["dataset"] == "beauty"]
    assert len(beauty) == 5 * 7
    for line in beauty:
        if line["metric"] != "ndcg@10":
            assert line["ci_low"] == line["p_holm"] == line["significant"] == ""
    knn = next(x for x in beauty if (x["method"], x["metric"]) == ("item_knn", "ndcg@10"))
    values = _primary(runs)
    test = contrast(values["item_knn"], values["sasrec_ce_all"], deterministic_a=True)
    assert float(knn["ci_low"]) == pytest.approx(test.low, abs=1e-6)
    assert float(knn["ci_high"]) == pytest.approx(test.high, abs=1e-6)
    family = compare_all(values, {"item_knn", "popularity"})
    assert float(knn["p_holm"]) == pytest.approx(
        family.adjusted["item_knn", "sasrec_ce_all"], rel=1e-5
    )
    assert (knn["reference"], knn["significant"]) == ("sasrec_ce_all", "true")


def _primary(runs: Path) -> dict[str, np.ndarray]:
    """NDCG@10 on beauty, label to (S, U), without the code under test."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for record, ranks in read_results(runs):
        if ranks is not None and record.dataset == "beauty":
            rank = ranks["rank"].astype(float)
            gain = np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0)
            found.setdefault(record.label, {})[record.seed] = gain
    return {label: np.stack([x[seed] for seed in sorted(x)]) for label, x in found.items()}


def test_json_holds_every_pair(out: Path) -> None:
    board = json.loads((out / "board.json").read_text("utf-8"))
    beauty = board["datasets"][0]
    assert len(beauty["pairs"]) == beauty["tests"] == 10
    pair = beauty["pairs"][0]
    assert {"a", "b", "p", "p_adjusted", "t", "df", "se", "v_users", "d_z", "won"} <= pair.keys()
    failed = next(row for row in beauty["rows"] if row["label"] == "gru4rec")["failed"]
    assert failed == {"1": "NonFiniteScoresError: nan | in\nscores"}
    assert board["preliminary"] is True


def test_no_trials_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(RequestError, match="no finished trial"):
        publish(tmp_path / "runs", "board", tmp_path)
    with pytest.raises(RequestError, match="no such folder"):
        publish(tmp_path / "nowhere", "board", tmp_path)


def _drop(folder: Path) -> None:
    (folder / "beauty" / "item_knn.npz").unlink()


def _truncate(folder: Path) -> None:
    path = folder / "beauty" / "item_knn.npz"
    path.write_bytes(path.read_bytes()[:-30])


def _shorten(folder: Path) -> None:
    path = folder / "beauty.npz"
    np.savez(path, user=np.arange(3), key=np.arange(3))


def _garble(folder: Path) -> None:
    (folder / "board.json").write_text("{}")


@pytest.mark.parametrize("damage", [_drop, _truncate, _shorten, _garble])
def test_damaged_ranks_are_refused(
    runs: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    publish(runs, "board", tmp_path)
    damage(tmp_path / "ranks" / "board")
    with pytest.raises(RequestError, match="no readable leaderboard ranks"):
        render(tmp_path / "ranks" / "board", tmp_path)


def test_reports_load_no_torch(out: Path) -> None:
    program = (
        "import sys; from pathlib import Path; "
        "import intentbench.reports.publish, intentbench.reports.comparison; "
        f"intentbench.reports.publish.render(Path({str(out / 'ranks' / 'board')!r}), "
        f"Path({str(out)!r})); "
        "print(sorted({'torch', 'lightning', 'polars', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_pages_of_a_large_board_take_little_time(tmp_path: Path) -> None:
    models = [FakeModel(f"model_{i}", 1 + i / 10) for i in range(7)]
    write_runs(tmp_path / "runs", models, n_users=22_000)
    publish(tmp_path / "runs", "board", tmp_path)
    started = time.process_time()
    render(tmp_path / "ranks" / "board", tmp_path)
    assert time.process_time() - started < 6  # about 1.5 s, most of it pictures


def test_a_publishing_that_fails_leaves_what_was_published(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(runs, "board", tmp_path)
    folder = tmp_path / "ranks" / "board"
    before = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if target == folder and self.name != ".board.old":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="no"):
        publish(runs / "beauty" / "item_knn", "board", tmp_path)
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    # killed between the two steps: the next one finds what was moved aside
    monkeypatch.undo()
    folder.rename(folder.with_name(".board.old"))
    publish(runs / "beauty" / "item_knn", "board", tmp_path)
    assert "sasrec_ce_all" in (folder / "history.json").read_text()


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere", "/elsewhere", ".hidden"])
def test_a_name_that_leads_elsewhere_removes_nothing(runs: Path, tmp_path: Path, name: str) -> None:
    publish(runs, "board", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RequestError, match="is no name; nothing was published"):
        publish(runs, name, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_something_else_is_left_alone(runs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "ranks" / "board" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(RequestError, match="holds no leaderboard ranks; choose another name"):
        publish(runs, "board", tmp_path)
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("part", ["label", "trial"])
def test_records_that_lead_elsewhere_are_not_published(
    runs: Path, tmp_path: Path, part: str
) -> None:
    changes: dict[str, Any] = {part: "../../evil"}
    record, ranks = read_results(runs)[0]
    with pytest.raises(RequestError, match="evil' is no name"):
        publish_results([(replace(record, **changes), ranks)], "board", tmp_path, Plan())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["dataset", "label", "trial"])
def test_names_that_lead_elsewhere_are_refused(runs: Path, tmp_path: Path, part: str) -> None:
    publish(runs, "board", tmp_path)
    file = tmp_path / "ranks" / "board" / "beauty" / "item_knn.json"
    records = json.loads(file.read_text())
    records[0][part] = "../../elsewhere"
    file.write_text(json.dumps(records))
    with pytest.raises(RequestError, match="elsewhere' is no name"):
        restore_trials(tmp_path / "ranks" / "board", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()

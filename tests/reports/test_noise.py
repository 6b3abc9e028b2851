"""The part of a page that says what noise costs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.metrics.formulas import compute_metric
from intentbench.reports.archive import read_archive, restore_trials
from intentbench.reports.cells import build_tables, read_results
from intentbench.reports.leaderboard import build_leaderboard
from intentbench.reports.noise import RESAMPLES, measure_noise, resample_users
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish, render
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    load_noise_ranks,
    save_noise_ranks,
    trial_folder,
    write_record,
)
from tests.reports.fake_runs import (
    KNN,
    N_ITEMS,
    POPULARITY,
    SASREC,
    FakeModel,
    fake_ranks,
    write_runs,
    write_trial,
)

RATES = (0.1, 0.3)
USERS = 300
IGR = FakeModel("igr", 1.6, method="igr_sr")


def write_noisy(
    root: Path, model: FakeModel, seed: int, training: bool = False, **changes: Any
) -> TrialRecord:
    """A trial whose ranks grow with the rate of noise."""
    record = write_trial(root, model, "beauty", seed, USERS)
    clean = fake_ranks(model, "beauty", seed, USERS)["rank"]
    own = np.random.default_rng([7, seed])
    protocols = ["test", "training"] if training else ["test"]
    entries, ranks = [], []
    for protocol in protocols:
        for rate in RATES:
            rank = np.minimum(clean + own.poisson(20 * rate, USERS), N_ITEMS)
            entry = {
                "protocol": protocol,
                "kind": "swap",
                "rate": rate,
                "rounding": "floor",
                "seed": 0,
                "share": rate * 0.8,
                "metrics": {"ndcg@10": float(compute_metric("ndcg@10", rank).mean())},
            }
            if protocol == "training":
                entry["training_share"] = rate * 0.5
            entries.append(entry)
            ranks.append(rank)
    folder = trial_folder(root, "beauty", record.label, record.trial)
    save_noise_ranks(folder, np.stack(ranks))
    record = replace(record, **{"noise": entries, **changes})
    write_record(folder, record)
    return record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows under noise, one of them in training too, and one without."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        write_noisy(root, SASREC, seed, training=True)
        write_noisy(root, IGR, seed)
    write_runs(root, [POPULARITY], ["beauty"], n_users=USERS)
    write_runs(root, [POPULARITY, KNN], ["toys"], n_users=USERS)
    return root


@pytest.fixture(scope="module")
def out(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboards")
    publish(runs, "board", folder)
    return folder


def test_losses_are_those_of_the_ranks(runs: Path) -> None:
    section = build_leaderboard("board", Plan(), read_results(runs)).sections[0]
    found = {
        (study.protocol, loss.label, loss.rate): loss
        for study in section.noise
        for loss in study.losses
    }
    assert len(found) == 2 * 2 + 2
    for number, (protocol, rate) in enumerate(
        [("test", 0.1), ("test", 0.3), ("training", 0.1), ("training", 0.3)]
    ):
        clean, noisy = _gains(runs, SASREC, number)
        loss = found[protocol, SASREC.label, rate]
        assert loss.mean == pytest.approx(noisy.mean())
        assert loss.loss == pytest.approx(1 - noisy.mean() / clean.mean())
        assert loss.share == rate * 0.8
        assert loss.training_share == (rate * 0.5 if protocol == "training" else None)
        assert loss.loss is not None
        assert loss.low is not None
        assert loss.high is not None
        assert 0 < loss.low < loss.loss < loss.high < 1
    assert section.noise[0].clean[SASREC.label] == pytest.approx(_gains(runs, SASREC, 0)[0].mean())


def _gains(
    runs: Path, model: FakeModel, number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@10 of each user, seeds averaged, without noise and under one."""
    clean, noisy = [], []
    for seed in (0, 1):
        name = next(
            record.trial
            for record, _ in read_results(runs)
            if (record.label, record.seed) == (model.label, seed)
        )
        clean.append(fake_ranks(model, "beauty", seed, USERS)["rank"])
        noisy.append(load_noise_ranks(trial_folder(runs, "beauty", model.label, name))[number])
    gain = [
        np.where(rank <= 10, 1 / np.log2(1.0 + rank), 0.0).mean(axis=0)
        for rank in (np.stack(clean), np.stack(noisy))
    ]
    return gain[0], gain[1]


def test_intervals_are_those_of_a_slow_bootstrap(runs: Path) -> None:
    section = build_leaderboard("board", Plan(), read_results(runs)).sections[0]
    loss = section.noise[0].at(SASREC.label, 0.3)
    assert loss is not None
    clean, noisy = _gains(runs, SASREC, 1)
    generator = np.random.default_rng(5)
    drawn = [generator.integers(0, USERS, USERS) for _ in range(4000)]
    losses = [1 - noisy[users].mean() / clean[users].mean() for users in drawn]
    low, high = np.quantile(losses, [0.025, 0.975])
    width = high - low
    assert loss.low == pytest.approx(low, abs=0.1 * width)
    assert loss.high == pytest.approx(high, abs=0.1 * width)


def test_resamples_take_the_same_users_in_all_columns() -> None:
    values = np.random.default_rng(0).random((40, 1)) * np.array([1.0, 2.0, -3.0])
    sums = resample_users(values)
    assert sums.shape == (RESAMPLES, 3)
    np.testing.assert_allclose(sums, sums[:, :1] * np.array([1.0, 2.0, -3.0]))
    np.testing.assert_allclose(resample_users(np.ones((40, 1))), 40)
    np.testing.assert_array_equal(sums, resample_users(values))
    expected = 40 * values.var(axis=0)
    np.testing.assert_allclose(sums.var(axis=0), expected, rtol=0.2)


def test_a_row_that_never_hits_has_no_loss(tmp_path: Path) -> None:
    record = write_noisy(tmp_path, SASREC, 0)
    folder = trial_folder(tmp_path, "beauty", record.label, record.trial)
    rank = np.full(USERS, 50)
    np.savez(folder / "ranks.npz", user=np.arange(USERS), key=np.full(USERS, 3), rank=rank)
    save_noise_ranks(folder, np.stack([rank, rank]))
    entries = [{**entry, "metrics": {}} for entry in record.noise]
    write_record(folder, replace(record, metrics={}, noise=entries))
    (table,) = build_tables(read_results(tmp_path))
    (study,) = measure_noise(table, table.cells, "ndcg@10", 0.05)
    assert [(x.mean, x.loss, x.low) for x in study.losses] == [(0.0, None, None)] * 2
    publish(tmp_path, "board", tmp_path / "out")
    assert "| 0.0000 | 0.0000 | 0.0000 |" in (tmp_path / "out" / "board.md").read_text()


def test_page_has_a_table_a_study_and_a_picture(out: Path) -> None:
    page = (out / "board.md").read_text("utf-8")
    beauty, toys = page.split("## toys")
    assert "Noise at test time: swap; NDCG@10, and its loss:" in beauty
    assert "Noise in training and at test time: swap; NDCG@10, and its loss:" in beauty
    assert "| model | 0 % | 10 % | 30 % |" in beauty
    assert "| *realised* | - | 8.0 % | 24.0 % |" in beauty
    assert "| *realised in training* | - | 5.0 % | 15.0 % |" in beauty
    assert "![Loss against rate of noise](board.beauty.noise.svg)" in beauty
    assert "- IGR-SR's paper (Table 3) gives a loss of 10.4 % at 20 % noise" in beauty
    assert "Noise at" not in toys.split("## How to read")[0]
    assert page.count("- Noise: a column a rate") == 1
    picture = (out / "board.beauty.noise.svg").read_text("utf-8")
    for label in (SASREC.label, "igr", "beauty", "loss of NDCG@10 (%)"):
        assert f">{label}<" in picture
    assert ">popularity<" not in picture
    assert not (out / "board.toys.noise.svg").exists()


def test_json_has_the_losses_where_there_are_some(out: Path) -> None:
    beauty, toys = json.loads((out / "board.json").read_text("utf-8"))["datasets"]
    assert "noise" not in toys
    assert [study["protocol"] for study in beauty["noise"]] == ["test", "training"]
    assert beauty["noise"][0]["losses"][0].keys() >= {"label", "rate", "loss", "low", "share"}


def test_the_note_on_igr_sr_stands_only_with_its_row(tmp_path: Path) -> None:
    write_noisy(tmp_path, SASREC, 0)
    publish(tmp_path, "board", tmp_path / "out")
    assert "IGR-SR" not in (tmp_path / "out" / "board.md").read_text("utf-8")


def test_published_ranks_alone_give_the_same_bytes(out: Path, tmp_path: Path) -> None:
    pages = render(out / "ranks" / "board", tmp_path)
    assert "board.beauty.noise.svg" in [page.name for page in pages]
    for page in pages:
        assert page.read_bytes() == (out / page.name).read_bytes()


def test_published_trials_come_back_with_their_noise(out: Path, runs: Path, tmp_path: Path) -> None:
    restore_trials(out / "ranks" / "board", tmp_path / "runs")
    back = {record.trial: (record, ranks) for record, ranks in read_results(tmp_path / "runs")}
    for record, ranks in read_results(runs):
        again, found = back[record.trial]
        assert again == record
        assert ranks is not None
        assert found is not None
        assert found.keys() == ranks.keys()
        assert ("noise" in found) == bool(record.noise)
        for part, values in ranks.items():
            np.testing.assert_array_equal(found[part], values)
    publish(tmp_path / "runs", "board", tmp_path)
    for page in ("board.md", "board.json", "board.beauty.noise.svg"):
        assert (tmp_path / page).read_bytes() == (out / page).read_bytes()


def test_trials_of_other_noise_are_not_averaged(tmp_path: Path) -> None:
    write_noisy(tmp_path, SASREC, 0)
    write_noisy(tmp_path, SASREC, 1, training=True)
    with pytest.raises(RequestError, match="differ in noise"):
        build_tables(read_results(tmp_path))


def test_ranks_that_do_not_give_what_was_recorded_are_refused(tmp_path: Path) -> None:
    record = write_noisy(tmp_path, SASREC, 0)
    folder = trial_folder(tmp_path, "beauty", record.label, record.trial)
    ranks = load_noise_ranks(folder)
    save_noise_ranks(folder, ranks[::-1])
    with pytest.raises(RequestError, match=r"seed 0, swap 0\.1: recorded ndcg@10"):
        build_tables(read_results(tmp_path))
    save_noise_ranks(folder, ranks[:1])
    with pytest.raises(RequestError, match="ranks under noise have shape"):
        build_tables(read_results(tmp_path))
    (folder / "noise.npz").unlink()
    with pytest.raises(RequestError, match=r"noise\.npz: no readable ranks"):
        read_results(tmp_path)


def test_archived_ranks_without_noise_are_refused(runs: Path, tmp_path: Path) -> None:
    publish(runs, "board", tmp_path)
    path = tmp_path / "ranks" / "board" / "beauty" / f"{SASREC.label}.npz"
    with np.load(path) as arrays:
        rank = arrays["rank"]
    np.savez(path, rank=rank)
    with pytest.raises(RequestError, match="no readable leaderboard ranks"):
        read_archive(tmp_path / "ranks" / "board")

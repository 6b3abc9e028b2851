"""The study of clusters epoch by epoch, against scikit-learn and counts by hand."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.studies.scripts import load_script
from tests.trials import train_rows

script = load_script("cluster_stability")
SMALL: dict[str, Any] = {
    "method": "indirec_clusters", "width": 16, "blocks": 1, "steps": 3, "clusters": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished trials by label."""
    models = {
        "kmeans": SMALL,
        "frozen": {**SMALL, "clustering": "frozen"},
        "sasrec": {"method": "sasrec"},
    }
    return train_rows(tmp_path_factory.mktemp("stability"), models, max_epochs=3)


def test_sizes_and_eta_squared_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3])
    values = np.array([1.0, 2.0, 3.0, 9.0, 5.0, 4.0])
    found = script.describe_clusters(labels, values, 4)
    assert found["empty"] == pytest.approx(1 / 4)
    assert found["largest"] == pytest.approx(3 / 6)
    shares = np.array([3, 1, 2]) / 6
    assert found["entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(4))
    fit = LinearRegression().fit(np.eye(4)[labels], values)
    assert found["eta_squared"] == pytest.approx(fit.score(np.eye(4)[labels], values))
    alike = script.describe_clusters(np.arange(8) % 4, np.ones(8), 4)
    assert alike == {"empty": 0.0, "largest": 0.25, "entropy": pytest.approx(1.0), "eta_squared": 0}


@pytest.mark.usefixtures("own_process")
def test_epoch_by_epoch(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs["kmeans"]), str(runs["frozen"])])
    script.main()
    out = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(out[out.index("row,seed") :])))
    assert [(row["row"], row["epoch"]) for row in rows] == [
        (label, str(epoch)) for label in ("kmeans", "frozen") for epoch in range(3)
    ]
    assert rows[0]["rand_index"] == rows[3]["rand_index"] == ""
    assert all(0 < float(row["rand_index"]) < 1 for row in rows[1:3])
    assert {row["rand_index"] for row in rows[4:]} == {"1.0000"}
    assert {row["largest"] for row in rows[3:]} == {rows[3]["largest"]}


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize(("label", "said"), [("sasrec", "no clusters"), ("none", "no trial")])
def test_it_refuses_others(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, label: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs.get(label, Path("none")))])
    with pytest.raises(SystemExit, match=said):
        script.main()

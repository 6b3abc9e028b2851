"""`recommend` against an independent reading of its lists."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from datamodules.prepare import prepare
from datamodules.prepared import TEST, load_prepared
from intentbench.cli import main


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small trained SASRec, whose scores have no ties."""
    root = tmp_path_factory.mktemp("recommend")
    spec = {
        "name": "lists",
        "datasets": ["synthetic-tiny"],
        "models": {"sasrec": {"loss": "ce", "width": 16, "dropout": 0.1}},
        "seeds": [0],
        "training": {"max_epochs": 3},
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(spec))
    arguments = ["--out", str(root / "runs"), "--leaderboards", str(root / "pages")]
    assert main(["run", str(root / "spec.yaml"), *arguments]) == 0
    return next(root.glob("runs/synthetic-tiny/sasrec/*/best.ckpt")).parent


def _lists(trial: Path, stage: str, k: int) -> dict[str, list[str]]:
    out = trial / f"{stage}.csv"
    command = ["recommend", str(trial / "best.ckpt"), "--stage", stage, "-k", str(k)]
    assert main([*command, "-o", str(out)]) == 0
    lists: dict[str, list[str]] = {}
    with out.open() as file:
        for row in csv.DictReader(file):
            mine = lists.setdefault(row["user"], [])
            assert int(row["rank"]) == len(mine) + 1
            mine.append(row["item"])
    return lists


def test_test_lists_give_the_metrics_of_the_record(trial: Path) -> None:
    lists = _lists(trial, "test", 20)
    data = load_prepared(prepare("synthetic-tiny"))
    users, items = data.original_ids("users"), data.original_ids("items")
    hits = gains = 0.0
    for u, user in enumerate(users):
        events = range(int(data.offsets[u]), int(data.offsets[u + 1]))
        (target,) = [items[int(data.items[e]) - 1] for e in events if int(data.split[e]) == TEST]
        if target in lists[user][:10]:
            hits += 1
            gains += 1 / math.log2(lists[user].index(target) + 2)
    metrics = json.loads((trial / "result.json").read_text())["metrics"]
    assert hits / len(users) == pytest.approx(metrics["hit_rate@10"], abs=1e-12)
    assert gains / len(users) == pytest.approx(metrics["ndcg@10"], abs=1e-12)


def test_lists_leave_the_history_out(trial: Path) -> None:
    lists = _lists(trial, "next", 40)
    data = load_prepared(prepare("synthetic-tiny"))
    items = data.original_ids("items")
    for u, user in enumerate(data.original_ids("users")):
        had = {items[i - 1] for i in data.items[data.offsets[u] : data.offsets[u + 1]].tolist()}
        assert not had & set(lists[user])
        assert len(set(lists[user])) == len(lists[user]) == min(40, data.n_items - len(had))

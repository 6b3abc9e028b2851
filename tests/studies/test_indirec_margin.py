"""The study of margins between intents, against one query at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.errors import RequestError
from intentbench.models.indirec_clusters import InDiRecClusters
from intentbench.results.store import load_ranks
from intentbench.runner.recommend import load_trained
from tests.studies.scripts import load_script
from tests.trials import train_rows

script = load_script("indirec_margin")
SMALL: dict[str, Any] = {
    "method": "indirec_clusters", "width": 16, "blocks": 1, "steps": 4, "clusters": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three finished trials by label."""
    models = {
        "member": SMALL,
        "mixture": {**SMALL, "signal": "centroids", "nearest": 2},
        "balanced": {**SMALL, "clustering": "balanced"},
        "frozen": {**SMALL, "clustering": "frozen"},
    }
    return train_rows(tmp_path_factory.mktemp("margins"), models, max_epochs=2)


def test_margins_against_one_query_at_a_time(runs: dict[str, Path]) -> None:
    model, data = load_trained(runs["mixture"] / "best.ckpt", None)
    assert isinstance(model, InDiRecClusters)
    users, keys, margins = script.find_margins(model, data)
    found = {(u, k): m for u, k, m in zip(users, keys, margins, strict=True)}
    assert list(found) == sorted(found)
    seen = 0
    for batch in data.test_dataloader():
        with torch.no_grad():
            states = model.encode(batch)
        for row in range(0, len(states), 3):
            near = sorted(float((states[row] - c).norm()) for c in model.members.kmeans.centroids)
            own = found[int(batch.users[row]), int(batch.key[row])]
            assert own == pytest.approx(near[1] - near[0], abs=1e-4)
            seen += 1
    assert seen > 10


def test_groups_are_equal_and_ordered() -> None:
    rng = np.random.default_rng(0)
    margin, ours, theirs = rng.random((3, 42))
    groups = script.group_by_margin(margin, ours, theirs, 4)
    assert [group.queries for group in groups] == [11, 11, 10, 10]
    assert [group.margin for group in groups] == sorted(group.margin for group in groups)
    narrow = margin <= np.sort(margin)[10]
    gap = (ours - theirs)[narrow]
    assert groups[0].ours == pytest.approx(ours[narrow].mean())
    assert groups[0].theirs == pytest.approx(theirs[narrow].mean())
    assert groups[0].difference == pytest.approx(gap.mean())
    assert groups[0].error == pytest.approx(gap.std(ddof=1) / 11**0.5)


def test_it_prints_both_trials_by_group(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs["mixture"]), str(runs["member"])])
    script.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 4
    assert sum(int(row[0]) for row in rows) == len(load_ranks(runs["mixture"])["user"])
    for _, _, ours, theirs, difference, _ in rows:
        assert float(difference) == pytest.approx(float(ours) - float(theirs), abs=2e-4)


def test_it_refuses_trials_without_centroids_or_of_other_queries(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs["balanced"]), str(runs["member"])])
    with pytest.raises(SystemExit, match="no two centroids"):
        script.main()
    monkeypatch.setattr("sys.argv", ["x", str(runs["frozen"]), str(runs["member"])])
    with pytest.raises(SystemExit, match="first epoch"):
        script.main()
    monkeypatch.setattr("sys.argv", ["x", str(runs["mixture"]), str(tmp_path)])
    with pytest.raises(SystemExit, match="has not finished"):
        script.main()
    record = json.loads((runs["member"] / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**record, "seed": 1}))
    with pytest.raises(SystemExit, match="another seed"):
        script.main()
    with pytest.raises(RequestError, match="other test queries"):
        script.find_metric(runs["member"], "ndcg@10", np.arange(3), np.arange(3))

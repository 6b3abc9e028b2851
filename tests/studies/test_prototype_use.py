"""The study of prototypes: mixtures against equations written out, and numbers by hand."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from intentbench.models.dccf import DCCF
from intentbench.runner.recommend import load_trained
from tests.studies.scripts import load_script
from tests.trials import train_rows

script = load_script("prototype_use")
SMALL: dict[str, Any] = {"width": 8, "layers": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished trials by label."""
    models = {
        "dccf": {"method": "dccf", "prototypes": 5, **SMALL},
        "lightgcn": {"method": "lightgcn", **SMALL},
    }
    return train_rows(tmp_path_factory.mktemp("prototypes"), models, max_epochs=1)


def test_numbers_against_scipy() -> None:
    mixtures = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    found = script.describe_mixtures(mixtures)
    rows = mixtures.double().numpy()
    assert found["entropy"] == pytest.approx(np.mean([entropy(row, base=3) for row in rows]))
    assert found["entropy_of_mean"] == pytest.approx(entropy(rows.mean(0), base=3))
    assert (found["prototypes"], found["used"]) == (3, 2)
    assert found["largest"] == pytest.approx(2 / 3)
    distances = [np.abs(row - rows.mean(0)).sum() / 2 for row in rows]
    assert found["distance_to_mean"] == pytest.approx(np.mean(distances))
    alike = script.describe_mixtures(torch.full((4, 8), 1 / 8))
    assert (alike["entropy"], alike["distance_to_mean"]) == (pytest.approx(1), pytest.approx(0))


def test_mixtures_of_the_nodes_that_enter(runs: dict[str, Path]) -> None:
    model, _ = load_trained(runs["dccf"] / "best.ckpt", None)
    assert isinstance(model, DCCF)
    found = list(script.find_mixtures(runs["dccf"], None))
    assert [(side, layer) for side, layer, _ in found] == [
        (side, layer) for layer in range(2) for side in ("users", "items")
    ]
    users, items = found[0][2], found[1][2]
    assert torch.allclose(users, (model.users @ model.prototypes.users).softmax(1))
    assert torch.allclose(items, (model.items @ model.prototypes.items).softmax(1))
    assert not torch.allclose(found[2][2], users)


def test_it_prints_and_refuses(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs["dccf"])])
    script.main()
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["row"], row["seed"], row["side"], row["layer"]) for row in rows] == [
        ("dccf", "0", side, layer) for layer in "01" for side in ("users", "items")
    ]
    assert all(row["prototypes"] == "5" and 0 < float(row["entropy"]) <= 1 for row in rows)
    monkeypatch.setattr("sys.argv", ["x", str(runs["lightgcn"])])
    with pytest.raises(SystemExit, match="no mixtures"):
        script.main()

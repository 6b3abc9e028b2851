"""The study of generated views: shares and cosines against loops, and views that are known."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from intentbench.models.indirec import InDiRec
from intentbench.runner.recommend import load_trained
from tests.studies.scripts import load_script
from tests.trials import train_rows

script = load_script("view_alignment")
SMALL: dict[str, Any] = {
    "method": "indirec", "width": 16, "blocks": 1, "steps": 3, "clusters": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished trials by label."""
    models = {
        "repaired": SMALL,
        "random": {**SMALL, "second_view": "random"},
        "control": {**SMALL, "lambda_diff": 0.0, "lambda_cl": 0.0},
        "sasrec": {"method": "sasrec"},
    }
    return train_rows(tmp_path_factory.mktemp("alignment"), models, max_epochs=1)


def test_measures_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    states, views = torch.randn(2, 30, 5, generator=generator)
    centroids = torch.randn(3, 5, generator=generator)
    nearest = torch.randint(3, (30,), generator=generator)
    found = script.measure(states, nearest, views, centroids)

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b / a.norm() / b.norm())

    kept = [
        min(range(3), key=lambda k: float((views[q] - centroids[k]).norm())) == nearest[q]
        for q in range(30)
    ]
    assert found["same cluster"] == pytest.approx(sum(map(int, kept)) / 30)
    turned = [max(range(3), key=lambda k: cosine(views[q], centroids[k])) for q in range(30)]
    assert found["same by angle"] == pytest.approx(
        sum(turned[q] == nearest[q] for q in range(30)) / 30
    )
    lengths = [float(state.norm()) for state in states]
    assert found["length of a state"] == pytest.approx(sum(lengths) / 30, abs=1e-6)
    pairs = [(int(nearest[a] == nearest[b])) for a in range(30) for b in range(30)]
    assert found["by chance"] == pytest.approx(sum(pairs) / 900)
    own = [cosine(views[q], states[q]) for q in range(30)]
    assert found["cosine with own state"] == pytest.approx(sum(own) / 30, abs=1e-6)
    middle = [cosine(views[q], centroids[nearest[q]]) for q in range(30)]
    assert found["with own centroid"] == pytest.approx(sum(middle) / 30, abs=1e-6)


def test_views_that_are_their_states_or_one_for_all() -> None:
    states = torch.eye(4).repeat(3, 1)
    nearest = torch.arange(4).repeat(3)
    same = script.measure(states, nearest, states, torch.eye(4))
    assert same["same cluster"] == same["cosine with own state"] == pytest.approx(1)
    assert same["by chance"] == pytest.approx(1 / 4)
    assert same["with another's state"] < 1
    one = script.measure(states, nearest, torch.ones(12, 4), torch.eye(4))
    assert one["cosine with own state"] == pytest.approx(one["with another's state"])


def test_states_and_clusters_are_those_of_the_test_queries(runs: dict[str, Path]) -> None:
    model, data = load_trained(runs["repaired"] / "best.ckpt", None)
    assert isinstance(model, InDiRec)
    states, nearest, views = script.generate_views(model, data, 10**6)
    wanted = torch.cat([model.encode(batch) for batch in data.test_dataloader()]).detach()
    assert torch.equal(states, wanted)
    assert torch.equal(nearest, torch.cdist(states, model.members.kmeans.centroids).argmin(1))
    assert views.shape == states.shape
    assert not views.requires_grad
    fewer, _, again = script.generate_views(model, data, 7)
    assert len(fewer) == len(again) == 7
    assert torch.equal(fewer[-1], states[-1])


def test_it_prints_each_trial_and_draws_the_first(
    runs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    place = tmp_path / "views.svg"
    monkeypatch.setattr("sys.argv", ["x", str(runs["repaired"]), "--picture", str(place)])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(runs["repaired"]))
    names = [line[2:27].strip() for line in lines[1:]]
    assert names[:3] == ["same cluster", "same by angle", "by chance"]
    assert names[-2:] == ["length of a view", "length of a state"]
    assert "<svg" in place.read_text()


@pytest.mark.parametrize(
    ("label", "said"),
    [("random", "no views"), ("control", "no denoiser"), ("sasrec", "not of InDiRec")],
)
def test_it_refuses_others(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, label: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs[label])])
    with pytest.raises(SystemExit, match=said):
        script.main()

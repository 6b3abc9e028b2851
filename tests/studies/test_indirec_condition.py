"""The study of InDiRec's condition: what the denoiser is given, and what is made of its answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.studies.scripts import load_script
from tests.trials import train_rows

script = load_script("indirec_condition")
SMALL: dict[str, Any] = {
    "method": "indirec_clusters", "width": 16, "blocks": 1, "steps": 3, "clusters": 4,
    "feature": "category",
}  # fmt: skip


class EchoSignal(nn.Module):
    """A denoiser that answers with its signal, and keeps what it was given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.full((width,), 0.5))
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(self, noisy: Tensor, signal: Tensor, steps: Tensor) -> Tensor:
        self.given.append((signal, steps))
        return signal


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished trials by label."""
    models = {
        "kmeans": SMALL,
        "attribute": {**SMALL, "clustering": "feature"},
        "frozen": {**SMALL, "clustering": "frozen"},
        "sasrec": {"method": "sasrec"},
    }
    return train_rows(tmp_path_factory.mktemp("condition"), models, max_epochs=1)


@pytest.mark.parametrize("label", ["kmeans", "attribute"])
def test_each_signal_is_what_its_name_says(runs: dict[str, Path], label: str) -> None:
    model = script.load_clusters(runs[label], None)
    prefixes, labels = model.members.prefixes, model.members.labels
    states = prefixes.encode_all(model.encoder)
    model.diffusion.denoiser = echo = EchoSignal(16)
    chosen = torch.arange(0, len(labels), 3)
    errors = script.measure(model, chosen)

    names = ["own", "another row's", "nothing", "own state"]
    given = dict(zip(names, [signal.detach() for signal, _ in echo.given], strict=False))
    for row, number in enumerate(chosen.tolist()):
        same = states[labels == labels[number]]
        assert (same == given["own"][row]).all(1).any()
    assert torch.equal(given["another row's"].sort(0).values, given["own"].sort(0).values)
    assert not torch.equal(given["another row's"], given["own"])
    assert torch.equal(given["nothing"], torch.full_like(given["own"], 0.5))
    assert torch.equal(given["own state"], states[chosen])
    assert [int(steps[0]) for _, steps in echo.given[::4]] == [1, 2, 3]

    clean = model.item_table()[prefixes.target[chosen]].detach()
    for name in names:
        expected = sum(float((given[name][i] - row).square().mean()) for i, row in enumerate(clean))
        assert errors[name] == pytest.approx(expected / len(clean), rel=1e-4)
    assert errors["mean item"] == pytest.approx(float(clean.var(0, unbiased=False).mean()))


def test_it_prints_each_trial(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(runs["kmeans"]), str(runs["attribute"])]
    monkeypatch.setattr("sys.argv", ["x", *given, "--users", "5"])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[::6]] == given
    assert "of 5 users, 4 clusters" in lines[0]
    for line in lines[2], lines[8]:
        assert line.split()[:2] == ["another", "row's"]
        assert "+0.0 %" in line


@pytest.mark.parametrize(("label", "said"), [("frozen", "first epoch"), ("sasrec", "not of InDi")])
def test_it_refuses_others(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, label: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs[label])])
    with pytest.raises(SystemExit, match=said):
        script.main()

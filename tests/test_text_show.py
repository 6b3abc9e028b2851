"""`intentbench text show` on tiny trained trials: its numbers, pictures and refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from scipy.stats import rankdata

from datamodules.errors import RequestError
from datamodules.interactions import InteractionDataModule
from intentbench.cli import main
from intentbench.contracts.data import planted_cycles
from intentbench.models import load_method
from intentbench.models.graph_text import TextGraphRecommender
from intentbench.models.irllrec import IRLLRec
from intentbench.results.store import CHECKPOINT, RESULT
from intentbench.runner.config import read_config
from intentbench.runner.text_spaces import (
    find_subject,
    find_user,
    match_user,
    measure_spaces,
    own_ranks,
    read_spaces,
)

SMALL: dict[str, Any] = {
    "base_arguments": {"width": 8, "layers": 2},
    "text": "gaussian",
    "profile_width": 10,
}
ALIGNED = {**SMALL, "intent_width": 12, "intents": 4}
NOTHING = {"pair_weight": 0.0, "translation_weight": 0.0, "itm_weight": 0.0}
SPEC: dict[str, Any] = {
    "name": "small",
    "datasets": ["synthetic-tiny"],
    "models": {
        "markov": {},
        "irllrec": {**ALIGNED, "pair_weight": 0.5, "profile_weight": 0.1, "learning_rate": 0.05},
    },
    "seeds": [0],
    "training": {"max_epochs": 2},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    (root / "small.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    places = ["--out", str(root / "runs"), "--leaderboards", str(root / "boards")]
    assert main(["run", str(root / "small.yaml"), *places]) == 0
    return root / "runs" / "synthetic-tiny"


@pytest.fixture(scope="module")
def trial(runs: Path) -> Path:
    return _trial(runs, "irllrec")


def _trial(runs: Path, label: str) -> Path:
    return next((runs / label).iterdir())


@pytest.mark.usefixtures("own_process")
def test_numbers_and_pictures(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["text", "show", str(trial), "-o", str(tmp_path / "a"), "--epochs", "1"]) == 0
    streams = capsys.readouterr()
    numbers = json.loads(streams.out)
    assert numbers == json.loads((tmp_path / "a" / "numbers.json").read_text())
    assert "training again, 1 epochs; " in streams.err
    assert [*numbers["stages"]] == ["before training", "after 1 epoch", "after training"]
    assert [*numbers["spaces"]] == ["embeddings e", "intents r", "texts z", "profiles p"]
    assert numbers["matched"] == ["intents r", "texts z"]
    assert main(["text", "show", str(trial), "-o", str(tmp_path / "b"), "--epochs", "1"]) == 0
    files = {"numbers.json", "densities.svg", "matching.svg"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    drawn = (tmp_path / "a" / "matching.svg").read_text(encoding="utf-8")
    for stage, found in numbers["stages"].items():
        assert stage in drawn
        assert f"dot {found['dot']:.3g}, cosine {found['cosine']:.3f}<" in drawn
        assert f"own text ranks {found['rank']} of 64<" in drawn
    drawn = (tmp_path / "a" / "densities.svg").read_text(encoding="utf-8")
    assert f"uniformity {numbers['spaces']['intents r']['uniformity']['items']:.2f}" in drawn


def test_untrained_method_is_what_the_trial_began_with(trial: Path) -> None:
    subject = find_subject(trial, None)
    fresh = subject.untrained()
    seed_everything(0, workers=True, verbose=False)
    arguments = read_config(trial)["model"]["init_args"]
    own = load_method("irllrec")(**arguments)
    for name, tensor in own.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(fresh.state_dict()[name], tensor), name


@pytest.mark.usefixtures("own_process")
def test_trained_again_for_as_many_epochs_it_is_the_checkpoint(trial: Path) -> None:
    subject = find_subject(trial, None)
    again = subject.after_epochs(subject.record.best_epoch + 1)
    kept = torch.load(trial / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
    before = subject.untrained().state_dict()
    assert not torch.allclose(before["base.users"], kept["base.users"])
    for name, tensor in again.named_parameters():
        assert torch.allclose(tensor, kept[name], atol=1e-5), name


def test_spaces_are_what_the_method_aligns(trial: Path) -> None:
    subject = find_subject(trial, None)
    spaces = read_spaces(subject.trained, subject.data)
    model = subject.trained
    assert isinstance(model, IRLLRec)
    n_users = model.n_users
    assert np.array_equal(spaces.side("embeddings e", "users"), model.base.user_table.numpy())
    assert np.array_equal(spaces.side("embeddings e", "items"), model.base.item_vectors[1:].numpy())
    with torch.no_grad():
        views = model.base.views(model.nodes())
        intents = model.interaction_intents(views).numpy()
        texts = model.tower(model.intent_text).numpy()
    found = match_user(spaces, 5)
    cosines = [
        intents[5] @ text / np.linalg.norm(intents[5]) / np.linalg.norm(text)
        for text in texts[:n_users]
    ]
    assert found["dot"] == pytest.approx(intents[5] @ texts[5], rel=1e-5)
    assert found["cosine"] == pytest.approx(cosines[5], rel=1e-4)
    assert found["rank"] == 1 + sum(cosine > cosines[5] for cosine in cosines)


def test_alignment_is_that_of_training_pairs(trial: Path) -> None:
    subject = find_subject(trial, None)
    spaces = read_spaces(subject.trained, subject.data)
    numbers = measure_spaces(spaces, subject.data)
    events = subject.data.training()
    users, items = spaces.side("texts z", "users"), spaces.side("texts z", "items")
    slow = []
    for user, item in zip(events.users.tolist(), events.items.tolist(), strict=True):
        a, b = users[user], items[item - 1]
        slow.append(2 - 2 * a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert numbers["texts z"]["alignment"] == pytest.approx(np.mean(slow), rel=1e-5)


def test_own_ranks_count_half_of_ties() -> None:
    random = np.random.default_rng(0)
    ours = random.normal(size=(300, 3)).astype(np.float32)
    texts = random.normal(size=(300, 3)).astype(np.float32)
    texts[100:140] = texts[7]  # users with one text
    texts[200] = 0
    unit_ours = ours.astype(np.float64) / np.linalg.norm(ours.astype(np.float64), axis=1)[:, None]
    wide = texts.astype(np.float64)
    unit_texts = wide / np.maximum(np.linalg.norm(wide, axis=1), 1e-30)[:, None]
    cosines = (unit_ours @ unit_texts.T).round(10)
    expected = [np.ceil(rankdata(-row)[user]) for user, row in enumerate(cosines)]
    assert own_ranks(ours, texts).tolist() == expected


def test_user_by_default_is_one_of_median_activity(trial: Path) -> None:
    data = find_subject(trial, None).data
    counts = np.bincount(data.training().users.numpy(), minlength=data.n_users)
    chosen = find_user(data, None)
    assert counts[chosen] == sorted(counts)[(len(counts) - 1) // 2]
    assert chosen == find_user(data, None)
    names = data.dataset.original_ids("users")
    assert find_user(data, names[9]) == 9


def _of(key: str, **arguments: Any) -> tuple[TextGraphRecommender, InteractionDataModule]:
    """An untrained method, and data for it."""
    data = InteractionDataModule(planted_cycles())
    model = load_method(key)(n_items=data.n_items, n_users=data.n_users, **arguments)
    assert isinstance(model, TextGraphRecommender)
    return model, data


@pytest.mark.parametrize(
    ("key", "matched"),
    [
        ("rlmrec_con", ("embeddings e", "profiles p")),
        ("rlmrec_gen", ("guesses x̂", "profiles x")),
        ("kar", ("embeddings e", "profiles p")),
    ],
)
def test_other_methods_on_texts(key: str, matched: tuple[str, str]) -> None:
    model, data = _of(key, **SMALL)
    spaces = read_spaces(model, data)
    assert spaces.matched == matched
    ours, texts = (spaces.kinds[kind] for kind in matched)
    assert ours.shape == texts.shape
    assert len(ours) == data.n_users + data.n_items
    assert 1 <= match_user(spaces, 0)["rank"] <= data.n_users


@pytest.mark.parametrize(
    ("changes", "kinds", "matched"),
    [
        ({}, ["e", "r", "z", "x"], ("intents r", "texts z")),
        ({"profile_weight": 0.1}, ["e", "r", "z", "p"], ("intents r", "texts z")),
        ({"profile_width": 1}, ["e", "r", "z"], ("intents r", "texts z")),
        ({"graph_intents": False}, ["e", "z", "x"], ("embeddings e", "texts z")),
        ({**NOTHING, "profile_weight": 0.1}, ["e", "p"], ("embeddings e", "profiles p")),
    ],
)
def test_variants_of_irllrec(
    changes: dict[str, Any], kinds: list[str], matched: tuple[str, str]
) -> None:
    spaces = read_spaces(*_of("irllrec", **{**ALIGNED, **changes}))
    assert [kind.split()[-1] for kind in spaces.kinds] == kinds
    assert spaces.matched == matched


def test_profiles_that_nothing_projects_are_shown_as_they_are() -> None:
    model, data = _of("irllrec", **ALIGNED)
    spaces = read_spaces(model, data)
    assert np.array_equal(spaces.kinds["profiles x"], model.profile_text.numpy())
    numbers = measure_spaces(spaces, data)["profiles x"]
    assert np.isfinite([*numbers["uniformity"].values(), numbers["alignment"]]).all()


def test_without_weights_there_is_nothing_to_show() -> None:
    with pytest.raises(RequestError, match="its weights are 0"):
        read_spaces(*_of("irllrec", **ALIGNED, **NOTHING))


@pytest.mark.parametrize(
    ("label", "arguments", "part"),
    [
        ("markov", [], "Markov adds no texts"),
        ("irllrec", ["--user", "nobody"], "no such user"),
        ("irllrec", ["--epochs", "0"], "at least 1"),
        ("nothing", [], "no config.yaml in it"),
    ],
)
def test_requests_that_cannot_be_met(
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    label: str,
    arguments: list[str],
    part: str,
) -> None:
    trial = tmp_path if label == "nothing" else _trial(runs, label)
    assert main(["text", "show", str(trial), "-o", str(tmp_path / "out"), *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "part"), [(CHECKPOINT, "no such checkpoint"), (RESULT, "has not finished")]
)
def test_trial_must_be_whole(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, part: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trial, copy)
    (copy / missing).unlink()
    assert main(["text", "show", str(copy), "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line

from pathlib import Path

import pytest
import torch

from intentbench.text.controls import apply_control
from intentbench.text.features import TextFeatures, offline_features
from intentbench.text.store import MATRICES
from tests.text.toys import toy_dataset


@pytest.fixture
def features(tmp_path: Path) -> TextFeatures:
    return offline_features(toy_dataset(tmp_path / "toy"), dims=6)


def _rows(matrix: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in matrix.tolist())


def test_shuffled_rows_stay_within_their_side_and_together(features: TextFeatures) -> None:
    found = apply_control(features, "shuffled", seed=1)
    for side in ("user", "item"):
        intent, profile = f"{side}_intent", f"{side}_profile"
        before = torch.cat([getattr(features, intent), getattr(features, profile)], 1)
        after = torch.cat([getattr(found, intent), getattr(found, profile)], 1)
        assert _rows(after) == _rows(before)
        assert not torch.equal(after, before)
    assert not found.item_intent[0].any()
    assert found.manifest.source == "tfidf-svd-6 (shuffled, seed 1)"


def test_gaussian_features_have_the_same_shapes_and_size(features: TextFeatures) -> None:
    found = apply_control(features, "gaussian", seed=1)
    for name in MATRICES:
        before, after = getattr(features, name), getattr(found, name)
        assert after.shape == before.shape
        assert after.square().mean() == pytest.approx(before.square().mean().item(), rel=0.4)
    assert not found.item_intent[0].any()
    assert not found.item_profile[0].any()


@pytest.mark.parametrize("control", ["shuffled", "gaussian"])
def test_controls_follow_their_seed(features: TextFeatures, control: str) -> None:
    first, same, other = (
        apply_control(features, control, seed)  # type: ignore[arg-type]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.user_intent, same.user_intent)
    assert not torch.equal(first.user_intent, other.user_intent)
    assert apply_control(features, "none") is features

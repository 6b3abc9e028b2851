import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.errors import FormatError, RequestError
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from datamodules.texts import TextData, collect_texts
from intentbench.results import fingerprint
from intentbench.text import features
from intentbench.text.documents import offline_documents
from intentbench.text.features import (
    describe_features,
    embed_documents,
    id_features,
    load_features,
    offline_features,
)
from intentbench.text.store import FEATURES, MANIFEST, MATRICES
from intentbench.text.tfidf import TfidfSvd
from tests.text.toys import others, toy_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    return toy_dataset(tmp_path / "cache" / "toy")


def _kept(dataset: PreparedDataset) -> list[Path]:
    assert dataset.folder is not None
    return [path for path in dataset.folder.parent.glob("toy.text-*") if path.is_dir()]


def test_shapes_halves_and_the_row_of_the_padding(dataset: PreparedDataset) -> None:
    found = offline_features(dataset, dims=6)
    assert found.user_intent.shape == (12, 12)
    assert found.item_intent.shape == (21, 12)
    assert found.user_profile.shape == (12, 6)
    assert found.item_profile.shape == (21, 6)
    assert all(matrix.dtype == torch.float32 for matrix in found.matrices().values())
    assert not found.item_intent[0].any()
    assert not found.item_profile[0].any()
    halves = torch.cat([found.user_intent, found.item_intent]).reshape(33, 2, 6).norm(dim=2)
    assert torch.isclose(halves, halves.round(), atol=1e-6).all()  # 1, or 0 where empty
    assert not halves[13:, 1].any()  # items have no reviews: nothing is disliked
    assert found.manifest.source == "tfidf-svd-6"
    assert found.manifest.data_fingerprint == dataset.fingerprint
    assert found.manifest.coverage["items"] == 1


def test_rows_are_of_the_users_and_items_that_they_say(dataset: PreparedDataset) -> None:
    documents = offline_documents(collect_texts(dataset), dataset.fingerprint)
    found = embed_documents(documents, TfidfSvd(6), "toy")
    texts = [*documents.users.profiles, *documents.items.profiles]
    vectors = TfidfSvd(6).embed(
        {
            "a": [*documents.users.intents[0], *documents.items.intents[0]],
            "b": [*documents.users.intents[1], *documents.items.intents[1]],
            "c": texts,
        }
    )
    np.testing.assert_array_equal(found.user_profile, vectors["c"][:12])
    np.testing.assert_array_equal(found.item_profile, vectors["c"][12:])
    lengths = np.linalg.norm(vectors["a"], axis=1)
    expected = vectors["a"] / np.where(lengths > 0, lengths, 1)[:, None]
    np.testing.assert_allclose(found.user_intent[:, :6], expected[:12], atol=1e-6)


def test_offline_features_are_made_once_and_kept_beside_the_dataset(
    dataset: PreparedDataset,
) -> None:
    first = offline_features(dataset, dims=6)
    (folder,) = _kept(dataset)
    written = (folder / FEATURES).stat().st_mtime_ns
    again = load_features("tfidf-svd-6", dataset)
    assert (folder / FEATURES).stat().st_mtime_ns == written
    for name in MATRICES:
        assert torch.equal(getattr(first, name), getattr(again, name))
    offline_features(dataset, dims=5)
    assert len(_kept(dataset)) == 2
    assert load_features("tfidf-svd", dataset).user_profile.shape[1] == 128


def test_other_texts_of_the_same_events_are_other_features(dataset: PreparedDataset) -> None:
    before = offline_features(dataset, dims=6)
    assert dataset.folder is not None
    texts = [f"tent oven {number % 3} kite" for number in range(20)]
    (dataset.folder / "items.texts.json").write_text(json.dumps(texts))
    assert not torch.equal(offline_features(dataset, dims=6).item_intent, before.item_intent)


def test_features_that_other_code_has_made_are_made_anew(
    dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline_features(dataset, dims=6)
    asked: list[list[Path]] = []

    def other_code(sources: list[Path]) -> str:
        asked.append(sources)
        return "other"

    monkeypatch.setattr(features, "code_fingerprint", other_code)
    offline_features(dataset, dims=6)
    assert len(_kept(dataset)) == 2
    assert asked == [[Path(features.__file__)]]


@pytest.mark.parametrize("name", ["documents.py", "tfidf.py", "../../datamodules/texts.py"])
def test_the_code_that_counts_reaches_documents_vectors_and_texts(name: str) -> None:
    start = Path(features.__file__)
    wanted, waiting, seen = (start.parent / name).resolve(), [start], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += fingerprint._imported_files(path)
    assert wanted in seen


def test_items_that_are_words_of_their_own_tell_who_has_had_what(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "cache" / "toy", rated=False)
    found = id_features(data, dims=20)
    assert found.manifest.texts == "ids"
    assert found.manifest.coverage == {"users": 1.0, "items": 1.0}  # no word was left out
    had = np.zeros((12, 20))
    for user, history in enumerate(collect_texts(data).histories):
        for event in history:
            had[user, event.item - 1] = 1
    documents = np.concatenate([had, np.eye(20)])
    counts = 2 * documents.sum(0)  # among likes and among undivided texts
    weighed = documents * (np.log((1 + 2 * 32) / (1 + counts)) + 1)
    weighed /= np.linalg.norm(weighed, axis=1, keepdims=True)
    profiles = torch.cat([found.user_profile, found.item_profile[1:]]).double().numpy()
    np.testing.assert_allclose(profiles @ profiles.T, weighed @ weighed.T, atol=1e-5)


def test_items_that_are_words_need_no_texts_and_know_no_held_out_item(tmp_path: Path) -> None:
    made = []
    for data in (
        toy_dataset(tmp_path / "a" / "toy"),
        toy_dataset(tmp_path / "b" / "toy", held_out=others),
    ):
        assert data.folder is not None
        for path in data.folder.glob("*.texts.json"):
            path.unlink()
        made.append(id_features(data, dims=6).matrices())
    for name in MATRICES:
        assert made[0][name].numpy().tobytes() == made[1][name].numpy().tobytes(), name


def test_a_source_is_described_with_a_checksum_of_what_it_gives(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    found = offline_features(dataset, dims=6)
    before = describe_features("tfidf-svd", dataset, 6)
    assert re.fullmatch(r"tfidf-svd-6 \(offline texts, [0-9a-f]{16}\)", before)
    assert describe_features("tfidf-svd-6", dataset) == before
    folder = tmp_path / "features"
    found.write(folder)
    first = describe_features(str(folder), dataset)
    replace(found, user_intent=found.user_intent * 2).write(folder)  # other vectors, same names
    assert describe_features(str(folder), dataset) != first
    assert first.partition(",")[0] == "tfidf-svd-6 (offline texts"
    assert dataset.folder is not None
    (dataset.folder / "items.texts.json").write_text(json.dumps(["kite"] * 20))
    assert describe_features("tfidf-svd", dataset, 6) != before
    with pytest.raises(RequestError, match="no text features there"):
        describe_features("nowhere", dataset)


def test_a_damaged_file_is_made_anew(dataset: PreparedDataset) -> None:
    first = offline_features(dataset, dims=6)
    (folder,) = _kept(dataset)
    (folder / FEATURES).write_bytes(b"torn")
    assert torch.equal(offline_features(dataset, dims=6).user_intent, first.user_intent)
    assert (folder / FEATURES).stat().st_size > 1000


def test_held_out_interactions_leave_every_vector_unchanged(tmp_path: Path) -> None:
    before = toy_dataset(tmp_path / "a" / "toy")
    after = toy_dataset(tmp_path / "b" / "toy", held_out=others)
    first, second = (offline_features(data, dims=6).matrices() for data in (before, after))
    for name in MATRICES:
        assert first[name].numpy().tobytes() == second[name].numpy().tobytes(), name


def test_whoever_asks_at_once_waits_for_the_first(
    dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def collect(found: PreparedDataset) -> TextData:
        made.append(found)
        time.sleep(0.2)
        return collect_texts(found)

    monkeypatch.setattr("intentbench.text.features.collect_texts", collect)
    with ThreadPoolExecutor(4) as pool:  # the lock is the file's: processes wait as threads do
        found = list(pool.map(lambda _: offline_features(dataset, dims=6), range(4)))
    assert len(made) == 1
    assert all(torch.equal(one.user_intent, found[0].user_intent) for one in found)
    assert len(_kept(dataset)) == 1


def test_a_folder_survives_and_two_runs_give_the_same_bytes(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    found = offline_features(dataset, dims=6)
    for name in ("a", "b"):
        found.write(tmp_path / name)
    for file in (FEATURES, MANIFEST):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = load_features(tmp_path / "a", dataset)
    assert torch.equal(loaded.item_profile, found.item_profile)
    assert replace(loaded.manifest, features_sha256="") == replace(
        found.manifest, features_sha256=""
    )


def test_features_of_other_data_are_refused_in_one_line(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    offline_features(dataset, dims=6).write(tmp_path / "features")
    other = toy_dataset(tmp_path / "other", seed=1)
    with pytest.raises(RequestError, match="text features of other data: fingerprint") as error:
        load_features(tmp_path / "features", other)
    assert "\n" not in str(error.value)
    assert "intentbench text embed toy" in str(error.value)


def test_files_that_do_not_fit_are_refused(dataset: PreparedDataset, tmp_path: Path) -> None:
    found = offline_features(dataset, dims=6)
    with pytest.raises(RequestError, match="no text features there"):
        load_features(tmp_path / "nowhere", dataset)
    replace(found, user_intent=found.user_intent[1:]).write(tmp_path / "short")
    with pytest.raises(RequestError, match=r"user_intent: expected 12 rows .* \(11, 12\)"):
        load_features(tmp_path / "short", dataset)
    nan = found.item_profile.clone()
    nan[3, 0] = torch.nan
    replace(found, item_profile=nan).write(tmp_path / "nan")
    with pytest.raises(RequestError, match="item_profile: expected 21 rows of finite numbers"):
        load_features(tmp_path / "nan", dataset)
    found.write(tmp_path / "torn")
    (tmp_path / "torn" / FEATURES).write_bytes(b"torn")
    with pytest.raises(FormatError, match="not the file that the manifest names"):
        load_features(tmp_path / "torn", dataset)
    manifest = tmp_path / "nan" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(FormatError, match="another version"):
        load_features(tmp_path / "nan", dataset)
    manifest.write_text("{")
    with pytest.raises(FormatError, match="damaged"):
        load_features(tmp_path / "nan", dataset)


def test_planted_texts_tell_the_planted_intents(tmp_path: Path) -> None:
    data = load_prepared(prepare("synthetic-tiny", cache=tmp_path))
    found = offline_features(data, dims=16)
    intent = data.features["truth.item_intent"][1:]
    similar = found.item_profile[1:] @ found.item_profile[1:].T
    similar.fill_diagonal_(-1)
    nearest = similar.argmax(1)
    assert (intent[nearest] == intent).float().mean() > 0.8  # a quarter by chance

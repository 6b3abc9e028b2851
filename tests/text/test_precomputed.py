from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import FormatError, RequestError
from intentbench.text.features import load_features
from intentbench.text.precomputed import read_precomputed
from tests.text.toys import toy_dataset


def _save(folder: Path, n_users: int, n_items: int) -> dict[str, np.ndarray]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    found = {
        f"{side}_{kind}": rng.random((rows, width))
        for side, rows in (("user", n_users), ("item", n_items))
        for kind, width in (("intent", 5), ("profile", 3))
    }
    for name, matrix in found.items():
        np.save(folder / f"{name}.npy", matrix)
    return found


@pytest.mark.parametrize("padded", [False, True])
def test_precomputed_vectors_with_and_without_a_row_for_the_padding(
    tmp_path: Path, padded: bool
) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    given = _save(tmp_path / "vectors", 12, 20 + padded)
    found = read_precomputed(tmp_path / "vectors", dataset)
    items = given["item_intent"][int(padded) :]
    np.testing.assert_allclose(found.item_intent[1:], items, rtol=1e-6)
    assert not found.item_intent[0].any()
    np.testing.assert_allclose(found.user_profile, given["user_profile"], rtol=1e-6)
    found.write(tmp_path / "features")
    assert load_features(tmp_path / "features", dataset).manifest.source == "precomputed:vectors"


def test_precomputed_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    _save(tmp_path / "short", 11, 20)
    with pytest.raises(RequestError, match=r"user_intent: expected 12 rows .* \(11, 5\)"):
        read_precomputed(tmp_path / "short", dataset)
    _save(tmp_path / "pickled", 12, 20)
    np.save(tmp_path / "pickled" / "item_profile.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(FormatError, match=r"item_profile.npy: not read"):
        read_precomputed(tmp_path / "pickled", dataset)
    (tmp_path / "pickled" / "item_profile.npy").unlink()
    with pytest.raises(FormatError, match="no such file; it takes user_intent"):
        read_precomputed(tmp_path / "pickled", dataset)
    _save(tmp_path / "text", 12, 20)
    np.save(tmp_path / "text" / "user_intent.npy", np.array([["a"]]))
    with pytest.raises(FormatError, match="not a matrix of numbers"):
        read_precomputed(tmp_path / "text", dataset)


@pytest.mark.parametrize("kind", ["intent", "profile"])
def test_users_and_items_of_several_widths_are_refused_with_both(tmp_path: Path, kind: str) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    _save(tmp_path / "vectors", 12, 20)
    np.save(tmp_path / "vectors" / f"item_{kind}.npy", np.ones((20, 4)))
    width = {"intent": 5, "profile": 3}[kind]
    words = rf"user_{kind}.npy has {width} columns, item_{kind}.npy 4; .* one width for both$"
    with pytest.raises(RequestError, match=words):
        read_precomputed(tmp_path / "vectors", dataset)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
@pytest.mark.parametrize("padded", [False, True])
def test_numbers_that_are_not_finite_as_float32_are_refused_with_the_first_row(
    tmp_path: Path, value: float, padded: bool
) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    given = _save(tmp_path / "vectors", 12, 20 + padded)["item_profile"]
    given[[7, 9], 1] = value
    np.save(tmp_path / "vectors" / "item_profile.npy", given)
    words = rf"item_profile.npy: not finite as float32: 2 of {len(given)} rows, the first is row 7,"
    with pytest.raises(RequestError, match=words):  # and no warning, which would be an error here
        read_precomputed(tmp_path / "vectors", dataset)


def test_what_the_row_of_the_padding_holds_is_of_no_use(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    given = _save(tmp_path / "vectors", 12, 21)["item_intent"]
    given[0] = np.nan
    np.save(tmp_path / "vectors" / "item_intent.npy", given)
    assert not read_precomputed(tmp_path / "vectors", dataset).item_intent[0].any()


@pytest.mark.parametrize("content", [b"1 2 3\n", b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", None])
def test_files_that_are_no_matrix_are_refused_without_advice_to_load_pickles(
    tmp_path: Path, content: bytes | None
) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    _save(tmp_path / "vectors", 12, 20)
    path = tmp_path / "vectors" / "user_intent.npy"
    if content is None:
        np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"user_intent.npy: not read: damaged, or no") as error:
        read_precomputed(tmp_path / "vectors", dataset)
    assert "allow_pickle" not in str(error.value)
    assert "\n" not in str(error.value)

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from datamodules.errors import RequestError
from intentbench.text.tfidf import DENSE, TfidfSvd, reduce_rows

WORDS = np.array([f"word{number}" for number in range(60)])


def _texts(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 61)
    return [
        " ".join(rng.choice(WORDS, rng.integers(3, 20), p=weights / weights.sum()))
        for _ in range(n)
    ]


def _tfidf(texts: list[str], fitted_on: list[str], min_df: int, max_df: float) -> np.ndarray:
    """Slow and plain: sublinear counts, smoothed idf, rows of length 1."""
    documents = [set(text.lower().split()) for text in fitted_on]
    frequency = {word: sum(word in found for found in documents) for word in WORDS}
    words = [
        word for word in sorted(frequency) if min_df <= frequency[word] <= max_df * len(documents)
    ]
    rows = np.zeros((len(texts), len(words)))
    for row, text in enumerate(texts):
        for column, word in enumerate(words):
            if count := text.lower().split().count(word):
                idf = np.log((1 + len(documents)) / (1 + frequency[word])) + 1
                rows[row, column] = (1 + np.log(count)) * idf
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def test_equals_a_plain_computation() -> None:
    likes, dislikes = [*_texts(80, 0), ""], _texts(70, 1)
    found = TfidfSvd(dims=5, min_df=5, max_df=0.5).embed({"likes": likes, "dislikes": dislikes})
    fitted_on = [text for text in (*likes, *dislikes) if text]
    for name, texts in (("likes", likes), ("dislikes", dislikes)):
        rows = _tfidf(texts, fitted_on, 5, 0.5)
        _, _, right = np.linalg.svd(rows, full_matrices=False)
        right = right[:5]
        signs = [np.sign(vector[np.abs(vector).argmax()]) for vector in right]
        expected = rows @ (right * np.array(signs)[:, None]).T
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert not found["likes"][-1].any()


@pytest.mark.parametrize("dense", [True, False])
def test_both_ways_equal_scikit_learn(dense: bool) -> None:
    rows = sp.csr_matrix(TfidfVectorizer().fit_transform(_texts(90, 2)))
    dims = 20 if dense else 6
    assert (min(rows.shape) <= DENSE * dims) is dense
    found = reduce_rows(rows, dims)
    reference = TruncatedSVD(dims, algorithm="arpack", random_state=0).fit_transform(rows)
    np.testing.assert_allclose(np.abs(found), np.abs(reference), atol=1e-5)


def test_width_is_kept_where_the_texts_span_less() -> None:
    rows = sp.csr_matrix(np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]))
    found = reduce_rows(rows, 8)
    expected = np.zeros((4, 8))
    expected[:2, 0] = expected[2, 1] = 1
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not reduce_rows(sp.csr_matrix((3, 4)), 2).any()


def test_texts_that_share_no_words_are_refused_in_one_line() -> None:
    with pytest.raises(RequestError, match=r"give no vocabulary.*5 documents.*50%"):
        TfidfSvd().embed({"likes": ["one two", "three four", ""]})
    with pytest.raises(RequestError, match="dims must be at least 1"):
        TfidfSvd(0)


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib;"
        "from tests.text.test_tfidf import _texts;"
        "from intentbench.text.tfidf import TfidfSvd;"
        "found = TfidfSvd(8).embed({'a': _texts(200, 0), 'b': _texts(40, 1)});"
        "print(hashlib.sha256(found['a'].tobytes() + found['b'].tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    found = TfidfSvd(8).embed({"a": _texts(200, 0), "b": _texts(40, 1)})
    here = hashlib.sha256(found["a"].tobytes() + found["b"].tobytes()).hexdigest()
    assert there.decode().strip() == here

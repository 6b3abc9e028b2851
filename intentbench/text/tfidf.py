"""TF-IDF and truncated SVD: vectors of texts without a language model, the same on every run."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from datamodules.errors import RequestError

_RANK_TOLERANCE = 1e-6
"""Directions with less of the largest singular value are noise, whose sign is anyone's guess."""

DENSE = 4
"""Matrices with fewer rows or words than this times the dimensions are decomposed by LAPACK: where
ARPACK's search space (twice the dimensions) may reach the rank, scipy starts it again at random
points that no argument of `svds` fixes."""


class TfidfSvd:
    """Latent semantic analysis with a fixed start vector and a sign rule.

    One vocabulary over all documents: lower case, single words, sublinear term frequencies, rows of
    length 1 (scikit-learn's `TfidfVectorizer`). Each column of texts then has a decomposition of
    its own (ARPACK, `scipy.sparse.linalg.svds`); of each right singular vector the entry that is
    largest in absolute value is made positive. One thread, so that sums are always in one order.

    Args:
        dims: width of the vectors. Where the texts span fewer directions, the rest is zero.
        min_df: words in fewer documents are left out.
        max_df: words in a larger share of the documents are left out.
    """

    def __init__(self, dims: int = 128, min_df: int = 5, max_df: float = 0.5) -> None:
        if dims < 1:
            raise RequestError(f"tfidf-svd: dims must be at least 1, not {dims}")
        self.name = f"tfidf-svd-{dims}"
        self.model, self.revision = "tfidf-svd", ""
        self.parameters: dict[str, object] = {"dims": dims, "min_df": min_df, "max_df": max_df}
        self._dims, self._min_df, self._max_df = dims, min_df, max_df

    def embed(self, columns: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.float32]]:
        """Vectors of texts; an empty text is a zero vector.

        Args:
            columns: texts by name.

        Returns:
            (n, dims) for each column of n texts.

        Raises:
            RequestError: no word stands in enough documents, and not in too many.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer  # costs a second
        from threadpoolctl import threadpool_limits  # scikit-learn's own

        vectoriser = TfidfVectorizer(
            lowercase=True, sublinear_tf=True, min_df=self._min_df, max_df=self._max_df
        )
        try:
            vectoriser.fit(text for texts in columns.values() for text in texts if text)
        except ValueError as error:
            raise RequestError(
                f"tfidf-svd: the texts give no vocabulary ({error}); it takes words that stand in "
                f"{self._min_df} documents and in at most {self._max_df:.0%} of them"
            ) from None
        with threadpool_limits(1):
            return {
                name: reduce_rows(sp.csr_matrix(vectoriser.transform(texts)), self._dims)
                for name, texts in columns.items()
            }


def reduce_rows(rows: sp.csr_matrix, dims: int) -> NDArray[np.float32]:
    """The rows' coordinates along the first right singular vectors, `rows @ V`.

    Args:
        rows: (n, words), non-negative.
        dims: width of the result; columns beyond the rank are zero.

    Returns:
        (n, dims); a row without entries is exactly zero.
    """
    reduced = np.zeros((rows.shape[0], dims), dtype=np.float32)
    used = rows.getnnz(axis=1) > 0
    filled = rows[used]
    if filled.shape[0] == 0:
        return reduced
    values, right = _decompose(filled, dims)
    right = right[values > _RANK_TOLERANCE * values[0]]
    largest = np.abs(right).argmax(axis=1)
    right *= np.sign(right[np.arange(len(right)), largest])[:, None]
    reduced[used, : len(right)] = filled @ right.T
    return reduced


def _decompose(rows: sp.csr_matrix, dims: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Singular values, largest first, and the right singular vectors, one a row."""
    from scipy.sparse.linalg import svds

    smaller = min(rows.shape)
    if smaller <= DENSE * dims:
        _, values, right = np.linalg.svd(rows.toarray(), full_matrices=False)
        return np.asarray(values[:dims], dtype=np.float64), right[:dims]
    start = np.random.default_rng(0).random(smaller)
    _, values, right = svds(rows, k=dims, v0=start, solver="arpack")
    order = np.argsort(-values, kind="stable")
    return np.asarray(values[order], dtype=np.float64), right[order]

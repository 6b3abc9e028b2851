"""EASE on a split of IRLLRec in plain NumPy, apart from the suite: is the row of the page right?

    python benchmarks/studies/ease_by_hand.py $INTENTBENCH_DATA/cf/amazon-movie.parquet --l2 50

Reads user, item and split; prints Recall@20 and NDCG@20 of the test items, training items masked.
Dense: 12 bytes a cell of items x items, a minute for 9,370 items on one core.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl


def main() -> None:
    """Score, sort, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("file", type=Path)
    parser.add_argument("--l2", type=float, default=50.0)
    options = parser.parse_args()
    events = pl.read_parquet(options.file)
    parts = {part: events.filter(pl.col("split") == part) for part in ("train", "test")}
    had = np.zeros((events["user"].max() + 1, events["item"].max() + 1), np.float32)  # type: ignore[operator]  # integers
    had[parts["train"]["user"], parts["train"]["item"]] = 1
    gram = (had.T @ had).astype(np.float64)
    gram[np.diag_indices_from(gram)] += options.l2
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = had @ weights.astype(np.float32)
    scores[had > 0] = -np.inf
    first = np.argsort(-scores, axis=1)[:, :20]
    discount = 1 / np.log2(np.arange(2, 22))
    wanted: dict[int, set[int]] = {}
    for user, item in parts["test"].select("user", "item").iter_rows():
        wanted.setdefault(user, set()).add(item)
    recall, ndcg = [], []
    for user, items in wanted.items():
        hits = np.array([item in items for item in first[user].tolist()])
        recall.append(hits.sum() / len(items))
        ndcg.append((hits * discount).sum() / discount[: min(20, len(items))].sum())
    print(f"{len(wanted)} users, recall@20 {np.mean(recall):.4f}, ndcg@20 {np.mean(ndcg):.4f}")


if __name__ == "__main__":
    main()

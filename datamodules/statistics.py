"""The figures that describe a prepared dataset."""

import numpy as np
from numpy.typing import NDArray

from datamodules.prepared import TEST, TRAIN


def compute_statistics(
    items: NDArray[np.int32], offsets: NDArray[np.int64], split: NDArray[np.uint8]
) -> dict[str, float]:
    """Figures of events that stand user by user.

    Args:
        items: (E,) ids, of which all of 1..V occur.
        offsets: (N + 1,).
        split: (E,).

    Returns:
        `users`, `items`, `interactions`; `density`, interactions / (users * items); `mean_length`,
        `min_length`, `max_length` of users; `users_without_target`, those with no test event;
        `repeated_targets`, test events whose item the user has had before; `unseen_test_items`,
        items of test events that no training event has.
    """
    lengths = np.diff(offsets)
    n_users, n_items = len(lengths), int(items.max())
    users = np.repeat(np.arange(n_users), lengths)
    is_test = split == TEST
    _, first = np.unique(users * (n_items + 1) + items, return_index=True)
    is_repeat = np.ones(len(items), dtype=bool)
    is_repeat[first] = False
    unseen = np.zeros(n_items + 1, dtype=bool)
    unseen[items[is_test]] = True
    unseen[items[split == TRAIN]] = False
    figures: dict[str, float] = {
        "users": n_users,
        "items": n_items,
        "interactions": len(items),
        "density": len(items) / (n_users * n_items),
        "mean_length": float(lengths.mean()),
        "min_length": int(lengths.min()),
        "max_length": int(lengths.max()),
        "users_without_target": int((np.bincount(users[is_test], minlength=n_users) == 0).sum()),
        "repeated_targets": int((is_repeat & is_test).sum()),
        "unseen_test_items": int(unseen.sum()),
    }
    return figures

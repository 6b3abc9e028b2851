"""The recipe: every choice between a file's events and a prepared dataset."""

from dataclasses import dataclass
from typing import Literal

from datamodules.errors import RequestError

Split = Literal["leave_one_out", "global_temporal", "ratio", "random", "pre_split", "last_session"]


@dataclass(frozen=True)
class Recipe:
    """Filters and split, applied in the order of the attributes (see `datamodules.preprocess`).

    Attributes:
        actions: keep events of these actions only; None keeps all.
        min_rating: keep events rated at least this; None keeps all.
        duplicates: what remains of several events of one user with one item: "keep" all, the
            "first" or the "last" in time.
        k_core: drop users and items with fewer events, again and again until none is left that
            has fewer; 0 and 1 drop nothing.
        session_gap: seconds without an event after which the next one opens a session. None takes
            the sessions that the data names; where it names none, "last_session" cuts at
            `datamodules.preprocess.SESSION_GAP`.
        split: which events are for training, validation and test, see `datamodules.splits`.
        valid_share: share of validation events, for "global_temporal", "ratio" and "random".
        test_share: share of test events, for the same.

    Raises:
        RequestError: a value is out of its range.
    """

    actions: tuple[str, ...] | None = None
    min_rating: float | None = None
    duplicates: Literal["keep", "first", "last"] = "keep"
    k_core: int = 0
    session_gap: int | None = None
    split: Split = "leave_one_out"
    valid_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that no data can be prepared with."""
        shares = (self.valid_share, self.test_share)
        if not (min(shares) >= 0 and sum(shares) < 1):  # so that NaN is refused too
            raise RequestError(
                f"recipe: valid_share {shares[0]} and test_share {shares[1]} must not be negative "
                "and must leave a share for training"
            )
        if self.k_core < 0:
            raise RequestError(f"recipe: k_core must be 0 or more, not {self.k_core}")
        if self.session_gap is not None and self.session_gap < 1:
            raise RequestError(f"recipe: session_gap must be 1 s or more, not {self.session_gap}")
        if self.actions == ():
            raise RequestError("recipe: actions is empty; name actions to keep, or leave it out")

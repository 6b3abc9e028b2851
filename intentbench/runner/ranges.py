"""Ranges of methods' numbers, by the names that methods share.

A share of 2 or no intents at all would often train: for hours, and to no purpose.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

from datamodules.errors import RequestError


class Range(NamedTuple):
    """From `low`, which may be `left_out`, to `high`."""

    low: float
    high: float = float("inf")
    left_out: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; nan is in none.

        >>> Range(0, 1, left_out=True).holds(1), Range(0, 1, left_out=True).holds(0)
        (True, False)
        """
        return (self.low < value if self.left_out else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"{'above' if self.left_out else 'at least'} {self.low:g}"
        return low if self.high == float("inf") else f"{low} and at most {self.high:g}"


SHARE = Range(0, 1)
COUNT = Range(1)
WEIGHT = Range(0)
SCALE = Range(0, left_out=True)

RANGES = {
    SHARE: (
        "dropout *_dropout crop mask reorder insert substitute *_ratio p_mask last_only "
        "*_replacement calibration"
    ),
    Range(0, 1, left_out=True): "keep masked decay",
    COUNT: (
        "width *_width hidden heads *_heads blocks *_blocks window length clusters "
        "prototypes intents candidates books words top top_m nearest negatives targets "
        "horizontal vertical steps decay_every short_term_events"
    ),
    SCALE: "temperature *_temperature learning_rate",
    WEIGHT: (
        "weight *_weight lambda_* l2 *_l2 weight_decay alpha beta distillation clip clip_norm "
        "layers num_intents num_prefix warm_up warmup_steps perturbation epsilon margin shrink "
        "short_length short_term_window hidden_hours"
    ),
}
"""Names, or their patterns, of each range. Other names may hold any number."""

OWN = {("IRLLRec", "alpha"): SHARE, ("IRLLRec", "beta"): SHARE, ("BSARec", "alpha"): SHARE}
"""Arguments of one class that are narrower than their name's range."""


def check_ranges(method: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
    """Check the numbers among a method's arguments.

    Args:
        method: its class. One from elsewhere may use a name in another sense: it is not checked.
        arguments: names and plain values; what is no number is passed over.
        where: file and key path, the beginning of the message.

    Raises:
        RequestError: a number outside its range.
    """
    if not isinstance(method, type) or not method.__module__.startswith("intentbench.models."):
        return
    for name, value in arguments.items():
        allowed = _range(method, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if allowed is not None and number and not allowed.holds(value):
            raise RequestError(f"{where}: {name}: must be {allowed}, found {value:g}")


@cache
def _range(method: type, name: str) -> Range | None:
    """The range of an argument, None where any number will do."""
    for cls in method.__mro__:
        if own := OWN.get((cls.__name__, name)):
            return own
    for allowed, patterns in RANGES.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns.split()):
            return allowed
    return None

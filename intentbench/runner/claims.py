"""What a sender says came out, held against what the ranks give."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import RequestError
from intentbench.metrics.users import mean_metric
from intentbench.results.external import DEPTH, gives_metric
from intentbench.runner.submission import Submission


def read_claims(text: str) -> dict[str, float]:
    """Metrics that the sender found: "ndcg@10=.0562,mrr=.03", or a JSON file {"ndcg@10": .0562}.

    Raises:
        RequestError: it is neither.
    """
    given: Any
    if text.endswith(".json"):
        try:
            given = json.loads(Path(text).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RequestError(f"--claims {text}: cannot be read ({error})") from None
    else:
        given = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        if len(given) != len(text.split(",")):
            raise RequestError(f"--claims {text}: expected metric=value,… or a .json file")
    try:
        claims = {str(name): float(value) for name, value in given.items()}
    except (AttributeError, TypeError, ValueError):
        raise RequestError(f"--claims {text}: expected numbers by metric") from None
    return claims


def check_claims(
    submission: Submission, claims: Mapping[str, float], tolerance: float
) -> list[str]:
    """Compare what the sender found with what the ranks give.

    Returns:
        A line a claim.

    Raises:
        RequestError: a claim is off by more than the tolerance, or cannot be judged.
    """
    record, targets = submission.record, submission.targets
    lines, wrong = [], []
    for name, claimed in claims.items():
        found = mean_metric(name, targets.user, submission.ranks.rank, targets.history)
        if not gives_metric(record, name):
            raise RequestError(
                f"{record.label}: claims {name}, which lists of {record.card[DEPTH]} items do not "
                "give"
            )
        text = f"{name} claimed {claimed:g}, found {found:.6f}"
        lines.append(f"  {text}")
        if not abs(claimed - found) <= tolerance:  # NaN too
            wrong.append(text)
    if wrong:
        raise RequestError(
            f"{record.label}: {'; '.join(wrong)}: more than {tolerance:g} apart; nothing written"
        )
    return lines

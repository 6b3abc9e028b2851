"""C15 accepts the loss that a plain loop gives, and no other."""

import json
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any

import pytest

from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import Subject
from intentbench.contracts.test_reference import test_loss_equals_the_reference_codes as check
from intentbench.runner.plugin import load_plugin
from tests.contracts import toys

check.__test__ = False  # type: ignore[attr-defined]  # it is called here, not collected

INPUTS = [[0.0, 0.0], [0.1, 0.3], [-0.2, 0.5], [0.7, -0.4]]
OUTPUTS = [[9.0, 9.0], [0.6, -0.1], [0.2, 0.8], [-0.5, 0.3]]
SEQUENCES = [[1, 2, 3, 1], [3, 2]]


def plain_loss() -> float:
    """Mean over adjacent pairs of -log softmax over items 1 to 3."""
    terms = []
    for sequence in SEQUENCES:
        for item, following in pairwise(sequence):
            scores = [sum(a * b for a, b in zip(INPUTS[item], row, strict=True)) for row in OUTPUTS]
            terms.append(log(sum(exp(score) for score in scores[1:])) - scores[following])
    return sum(terms) / len(terms)


def reference(loss: float) -> dict[str, Any]:
    return {
        "origin": "a plain loop in tests/contracts/test_reference.py",
        "arguments": {"n_items": 3, "n_users": 2, "width": 2},
        "weights": {"inputs.weight": INPUTS, "outputs.weight": OUTPUTS},
        "sequences": SEQUENCES,
        "loss": {"total": loss},
    }


@pytest.mark.parametrize("shift", [0.0, 1e-6])
def test_reference_loss(shift: float, tmp_path: Path) -> None:
    file = tmp_path / f"toy_reference_{shift > 0}.py"
    file.write_text(Path(toys.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    subject = Subject("last_item", load_plugin(file)["last_item"], planted_cycles())
    (tmp_path / "references").mkdir()
    stored = tmp_path / "references" / "last_item.json"
    stored.write_text(json.dumps(reference(plain_loss() + shift)), encoding="utf-8")
    if shift:
        with pytest.raises(AssertionError):
            check(subject)
    else:
        check(subject)

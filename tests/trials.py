"""Trials as `intentbench run` leaves them, for tests of what is done with trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from intentbench.cli import main


def train_rows(root: Path, models: Mapping[str, Any], max_epochs: int) -> dict[str, Path]:
    """Run rows on synthetic-tiny, seed 0.

    Args:
        root: an empty folder.
        models: rows as a spec has them.
        max_epochs: of each.

    Returns:
        Folder of each trial by label.
    """
    spec = {
        "name": "trials",
        "datasets": ["synthetic-tiny"],
        "models": dict(models),
        "seeds": [0],
        "training": {"max_epochs": max_epochs},
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(spec))
    arguments = ["--out", str(root / "runs"), "--leaderboards", str(root / "pages")]
    assert main(["run", str(root / "spec.yaml"), *arguments]) == 0
    found = root.glob("runs/synthetic-tiny/*/*/best.ckpt")
    return {path.parents[1].name: path.parent for path in found}

"""Lists of recommended items from a trained trial."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import polars as pl
import torch

from datamodules.errors import RequestError
from intentbench.models.base import Recommender
from intentbench.results.store import CONFIG
from intentbench.runner.config import read_config
from intentbench.runner.trial import build_data, build_model

Stage = Literal["next", "test", "validation"]


def load_checkpoint(checkpoint: Path) -> Recommender:
    """The trained method of a trial, from the checkpoint beside its `config.yaml`.

    Raises:
        RequestError: there is no such checkpoint, or no `config.yaml` beside it.
    """
    if not checkpoint.is_file():
        raise RequestError(f"{checkpoint}: no such checkpoint")
    if not (checkpoint.parent / CONFIG).exists():
        raise RequestError(f"{checkpoint}: no {CONFIG} beside it; give the one in a trial's folder")
    model = build_model(read_config(checkpoint.parent))
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict(state)
    return model.eval()


@torch.inference_mode()
def recommend(checkpoint: Path, k: int, stage: Stage, data_root: Path | None) -> pl.DataFrame:
    """The k best items of every user.

    Args:
        checkpoint: `best.ckpt` of a trial.
        k: list length.
        stage: what the lists stand for: "next" follows all of a user's events; "test" and
            "validation" follow what was known before that target.
        data_root: where data files are looked for.

    Returns:
        Columns user, item (original ids), score, rank (1 is best); a user with fewer than k
        candidates has fewer rows.
    """
    if k < 1:
        raise RequestError(f"-k {k}: must be at least 1")
    model = load_checkpoint(checkpoint)
    data = build_data(read_config(checkpoint.parent))
    data.data_root = data_root
    loader = {
        "next": data.predict_dataloader,
        "test": data.test_dataloader,
        "validation": data.val_dataloader,
    }[stage]()
    users = pl.Series(data.dataset.original_ids("users"))
    items = pl.Series(["", *data.dataset.original_ids("items")])

    def parts() -> Iterator[pl.DataFrame]:
        for batch in loader:
            best, scores = model.recommend(batch, k)
            shape = best.shape
            yield pl.DataFrame(
                {
                    "row": batch.users[:, None].expand(shape).flatten().numpy(),
                    "item": best.flatten().numpy(),
                    "score": scores.flatten().numpy(),
                    "rank": torch.arange(1, shape[1] + 1).expand(shape).flatten().numpy(),
                }
            )

    lists = pl.concat(parts()).filter(pl.col("score") > -float("inf")).sort("row", "rank")
    return lists.select(
        user=users.gather(lists["row"]),
        item=items.gather(lists["item"]),
        score=pl.col("score"),
        rank=pl.col("rank"),
    )

"""What the tests of methods without gradients share: small data, and figures on published data."""

from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st

from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from datamodules.sequence import SequenceDataModule
from datamodules.types import EvaluationBatch, TrainingData
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.base import Recommender

N_ITEMS = 6

SEQUENCES = st.lists(st.lists(st.integers(1, N_ITEMS), max_size=6), min_size=1, max_size=5).filter(
    any
)
"""Training events of a few users; items repeat, and some users have none."""

METRICS = ("hit_rate@5", "ndcg@5", "hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20")


def training_of(sequences: list[list[int]]) -> TrainingData:
    """The training events of these users."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    items = torch.tensor([item for row in sequences for item in row], dtype=torch.int64)
    return TrainingData(items, offsets, N_ITEMS)


def queries_of(histories: list[list[int]]) -> EvaluationBatch:
    """A batch that asks what comes after these histories, the longest of which come first."""
    width = max(1, *(len(history) for history in histories))
    rows = torch.tensor([history + [0] * (width - len(history)) for history in histories])
    lengths = torch.tensor([len(history) for history in histories])
    starts = torch.arange(len(rows)) * width
    return EvaluationBatch(
        users=torch.arange(len(rows)),
        items=rows,
        lengths=lengths,
        select=starts + (lengths - 1).clamp(min=0),
        groups=((0, len(rows), width),),
        history=rows,
        masked=rows,
        target=torch.zeros(len(rows), dtype=torch.int64),
        key=lengths,
    )


@cache
def published(name: str, root: Path) -> SequenceDataModule:
    """A published dataset, prepared once for all tests."""
    return SequenceDataModule(load_prepared(prepare(name, data_root=root)))


def figures(model: Recommender, data: SequenceDataModule) -> list[float]:
    """`METRICS` over all test users, to four decimals."""
    ranks = [
        ranks_from_scores(model.score(batch), batch.target, batch.masked)
        for batch in data.test_dataloader()
    ]
    rank = torch.cat(ranks).numpy()
    return [round(float(compute_metric(name, rank).mean()), 4) for name in METRICS]

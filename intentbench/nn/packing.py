"""Vectors that stand in for the real items of a batch, as one flat list without padding.

How many there are, and so what is drawn for them, does not depend on how wide the batch is.
"""

from dataclasses import replace

import torch
from torch import Tensor

from datamodules.types import SequenceBatch
from intentbench.nn.grouping import encode_last
from intentbench.nn.transformer import SequenceEncoder


def places(batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """Row and column, both (R,), of each real item of a batch, row after row.

    A GPU is waited for to learn R, unless every row is a single item.
    """
    count = len(batch.items) if batch.items.shape[1] == 1 else None
    rows = torch.repeat_interleave(batch.lengths, output_size=count)
    begins = batch.lengths.cumsum(0) - batch.lengths
    return rows, torch.arange(len(rows), device=rows.device) - begins[rows]


def encode_vectors(batch: SequenceBatch, vectors: Tensor, encoder: SequenceEncoder) -> Tensor:
    """The last state (B, D) of each row, where vectors (R, D) replace the embeddings of items."""
    padded = vectors.new_zeros(*batch.items.shape, vectors.shape[1])
    padded[places(batch)] = vectors
    return encode_last(
        replace(batch, items=padded),
        lambda given, lengths: encoder.attend(given, lengths - 1).squeeze(1),
    )

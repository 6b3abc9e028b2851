"""GRU4Rec(ce, all): a recurrent network over items (after Hidasi et al., ICLR 2016).

    h_t = W GRU(e_{i_1} … e_{i_t}),  score(v) = h_t · o_v + b_v
    L = mean over all positions of the cross-entropy of the next item over the whole catalogue

This is the variant in which papers on sequential recommendation use GRU4Rec, not the one of 2016:
rows are users instead of parallel sessions, every position is a target, and the loss is the full
softmax instead of one over sampled negatives (TOP1, BPR-max).
"""

import torch
from torch import Tensor, nn

from datamodules.types import PAD, Batch, SequenceBatch
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.grouping import encode_groups
from intentbench.nn.initialisation import init_xavier

_S3REC = (
    "S3-Rec repository, full-ranking table (CIKM 2020): another loss, lightly trained; whether "
    "history is removed: unstated"
)

CARD = Card(
    title="GRU4Rec(ce, all)",
    paper="Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016, "
    "arXiv:1511.06939",
    code="github.com/hidasib/GRU4Rec",
    tiny={"width": 16, "hidden": 32, "embedding_dropout": 0.1, "learning_rate": 1e-2},
    published=(
        Published("beauty", "hit_rate@10", 0.0283, _S3REC),
        Published("beauty", "ndcg@10", 0.0137, _S3REC),
        Published("beauty", "ndcg@20", 0.0187, _S3REC),
        Published("sports", "hit_rate@10", 0.0204, _S3REC),
        Published("sports", "ndcg@10", 0.0110, _S3REC),
        Published("sports", "ndcg@20", 0.0142, _S3REC),
        Published("toys", "hit_rate@10", 0.0176, _S3REC),
        Published("toys", "ndcg@10", 0.0084, _S3REC),
        Published("toys", "ndcg@20", 0.0116, _S3REC),
        Published("yelp", "hit_rate@10", 0.0263, _S3REC),
        Published("yelp", "ndcg@10", 0.0134, _S3REC),
        Published("yelp", "ndcg@20", 0.0178, _S3REC),
    ),
    deviations=(
        "full cross-entropy at every position instead of a ranking loss over items of the batch",
        "one row a user, its state starting at zero, instead of session-parallel batches",
        "a linear layer from the hidden state back to the width of the item table, as in RecBole",
    ),
    first_loss="log_items",
)


class GRU4Rec(GradientRecommender):
    """One GRU layer between an item table and its (by default the same) output table.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        width: D of the item tables.
        hidden: width of the GRU's state.
        embedding_dropout: of the GRU's inputs.
        output_dropout: of the GRU's outputs.
        tied: whether the input table is the output table too.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 64,
        hidden: int = 128,
        embedding_dropout: float = 0.3,
        output_dropout: float = 0.1,
        tied: bool = True,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)
        self.output = self.items if tied else nn.Embedding(n_items + 1, width, padding_idx=PAD)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.back = nn.Linear(hidden, width)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.output_dropout = nn.Dropout(output_dropout)
        self.apply(init_xavier)

    def states(self, items: Tensor) -> Tensor:
        """States (B, L, D) after each of the items (B, L); those at padding mean nothing."""
        outputs, _ = self.gru(self.embedding_dropout(self.items(items)))
        result: Tensor = self.back(self.output_dropout(outputs))
        return result

    def encode(self, batch: Batch) -> Tensor:
        """[h, 1] after the last item, (B, D + 1): the last factor carries the items' biases."""
        last = encode_groups(batch, self.states)[batch.select]
        return torch.cat([last, torch.ones_like(last[:, :1])], 1)

    def item_table(self) -> Tensor:
        """[o_v, b_v], (V + 1, D + 1)."""
        return torch.cat([self.output.weight, self.bias[:, None]], 1)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy over the catalogue at every real target."""
        states = encode_groups(batch, self.states)[batch.select]
        loss = chunked_cross_entropy(states, self.output.weight, batch.labels, self.bias)
        return {"total": loss}

"""Time as position, and encoders that add it (IntentRec, arXiv 2408.05353).

    time_k = E_hour + E_weekday + E_gap (+ E_order)
    x_k    = LN(W X_k + b) + time_k,  then causal Transformer blocks

The paper adds timestamp embeddings and does not say how a timestamp becomes an index. Hour of the
day, day of the week and the gap to the event before are all known at k. Dates are left out, for the
weeks of the test are unseen; so are times relative to the last event, which would tell position k
how far the future reaches.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from intentbench.nn.initialisation import init_normal
from intentbench.nn.transformer import BertBlock

Position = Literal["time+order", "time", "order", "none"]

HOURS, DAYS, GAPS = 24, 7, 32
HOUR, DAY = 3600, 86400


def time_codes(timestamps: Tensor, gaps: Tensor) -> Tensor:
    """Hour of day, day of week, and ⌊log2(1 + gap)⌋ of each event.

    Args:
        timestamps: (E,) int64 seconds.
        gaps: (E,) int64 seconds since the user's event before, 0 at the first.

    Returns:
        (E, 3) int64. A shift of all timestamps by whole weeks leaves them as they are.
    """
    hour = timestamps.div(HOUR, rounding_mode="floor") % HOURS
    weekday = timestamps.div(DAY, rounding_mode="floor") % DAYS
    gap = (gaps + 1).double().log2().floor().long().clamp(max=GAPS - 1)
    return torch.stack([hour, weekday, gap], -1)


class TimeEncoding(nn.Module):
    """The sum of learned tables of time, and of the place in the window.

    Args:
        width: D.
        position: which tables there are: of time, of the order, both or none.
        window: longest window, the size of the table of places.
    """

    def __init__(self, width: int, position: Position, window: int) -> None:
        super().__init__()
        sizes = (HOURS, DAYS, GAPS) if "time" in position else ()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.order = nn.Embedding(window, width) if "order" in position else None

    def initialise(self) -> None:
        """Numbers whose sum over tables has variance 1, as has the LN that they are added to."""
        tables = [*self.tables, *([] if self.order is None else [self.order])]
        for table in tables:
            init_normal(table, len(tables) ** -0.5)

    def forward(self, codes: Tensor) -> Tensor | float:
        """What to add to vectors (B, L, D).

        Args:
            codes: (B, L, 3) as `time_codes` gives them.
        """
        total: Tensor | float = 0.0
        for number, table in enumerate(self.tables):
            total = total + table(codes[..., number])
        if self.order is not None:
            total = total + self.order.weight[: codes.shape[1]]
        return total


class TimedEncoder(nn.Module):
    """Features to states: a layer, LN, time, causal blocks.

    Args:
        inputs: width of the features.
        width: D of the states.
        position: see `TimeEncoding`.
        window: longest window.
        blocks: number of blocks (post-norm, inner width 4 D), or those of another encoder.
        heads: attention heads.
        dropout: after the sum with time, and within the blocks.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        position: Position,
        window: int,
        blocks: "int | nn.ModuleList",
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.time = TimeEncoding(width, position, window)
        self.dropout = nn.Dropout(dropout)
        if isinstance(blocks, int):
            blocks = nn.ModuleList(BertBlock(width, heads, dropout) for _ in range(blocks))
        self.blocks = blocks

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """States (B, L, D) of features (B, L, `inputs`); codes (B, L, 3) as in `TimeEncoding`."""
        states: Tensor = self.dropout(self.norm(self.enter(features)) + self.time(codes))
        for block in self.blocks:
            states = block(states)
        return states

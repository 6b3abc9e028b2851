"""Intents that learnable tokens read out of a trained sequence encoder (LID of IGR-SR).

    H = Encoder(P_1 … P_k, E[i_1] + p_1 … E[i_n] + p_n, I_1 … I_m)
    T = the last m states

after arXiv:2512.14034. The encoder may be frozen; prefix tokens P and intent tokens I learn through
it. Only items carry positions, those they had when the encoder was trained. The tokens stand
before its first normalisation, so that they pass through the same operations as items.

B rows, n items on the right padded to the widest row, width D. Intent tokens directly follow the
last real item of a row and padding comes after them, so that a causal mask alone is right.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from datamodules.types import PAD
from intentbench.nn.bidirectional import BidirectionalEncoder, take
from intentbench.nn.transformer import CausalSelfAttention, SASRecBlock, SequenceEncoder


@dataclass(frozen=True)
class CausalReader:
    """Tokens in the encoder of SASRec, of either kind."""

    encoder: SequenceEncoder

    @property
    def table(self) -> Tensor:
        """Item embeddings (V + 1, D)."""
        return self.encoder.items.weight

    def embed(self, items: Tensor) -> Tensor:
        """√D E[s] + P or E[s] + P, (B, n, D)."""
        vectors: Tensor = self.encoder.scale * self.encoder.items(items)
        return vectors + self.encoder.positions.weight[: items.shape[1]]

    def states(self, vectors: Tensor, lengths: Tensor, places: Tensor | None = None) -> Tensor:
        """States of vectors that stand in for embedded items.

        Args:
            vectors: (B, L, D), padded on the right.
            lengths: (B,) how many of them are real.
            places: (B, S) positions; the states there are returned alone, at less cost.

        Returns:
            (B, L, D), or (B, S, D) with `places`.
        """
        states = self._first(vectors)
        for block in self.encoder.blocks[:-1]:
            states = block(states)
        last = self.encoder.blocks[-1]
        column = torch.arange(states.shape[1], device=states.device)
        if places is None:
            states = last(states)
        else:
            visible = column <= places[:, None, :, None]
            states = masked_block(last, take(states, places), states, visible)
        result: Tensor = self.encoder.last_norm(states)
        return result

    def everywhere(self, prefix: Tensor, items: Tensor, tokens: Tensor) -> Tensor:
        """What tokens read that stand after each of the items, as if none came after it.

        It is one pass, in which tokens after item t see what t sees, and themselves.

        Args:
            prefix: (k, D).
            items: (B, n, D), embedded.
            tokens: (m, D).

        Returns:
            (B, n, m, D).
        """
        rows, n = items.shape[:2]
        k, m = len(prefix), len(tokens)
        parts = (prefix.expand(rows, -1, -1), items, tokens.repeat(n, 1).expand(rows, -1, -1))
        states = self._first(torch.cat(parts, 1))
        visible = per_position_mask(k, n, m, items.device)
        for block in self.encoder.blocks[:-1]:
            states = masked_block(block, states, states, visible)
        last = masked_block(self.encoder.blocks[-1], states[:, k + n :], states, visible[k + n :])
        result: Tensor = self.encoder.last_norm(last)
        return result.reshape(rows, n, m, -1)

    def _first(self, vectors: Tensor) -> Tensor:
        states: Tensor = self.encoder.dropout(self.encoder.first_norm(vectors))
        return states


@dataclass(frozen=True)
class RecurrentReader:
    """Tokens as further steps of GRU4Rec's recurrence.

    Attributes:
        items: item embeddings.
        gru: one layer.
        back: from its state to the width of the items.
        embedding_dropout: of its inputs.
        output_dropout: of its outputs.
    """

    items: nn.Embedding
    gru: nn.GRU
    back: nn.Linear
    embedding_dropout: nn.Dropout
    output_dropout: nn.Dropout

    @property
    def table(self) -> Tensor:
        """Item embeddings (V + 1, D)."""
        return self.items.weight

    def embed(self, items: Tensor) -> Tensor:
        """E[s], (B, n, D)."""
        vectors: Tensor = self.items(items)
        return vectors

    def states(self, vectors: Tensor, lengths: Tensor, places: Tensor | None = None) -> Tensor:
        """See `CausalReader`."""
        outputs = self._run(vectors)
        return self._back(outputs if places is None else take(outputs, places))

    def everywhere(self, prefix: Tensor, items: Tensor, tokens: Tensor) -> Tensor:
        """See `CausalReader`: the recurrence goes on with the tokens from each of its states."""
        rows, n = items.shape[:2]
        before = self._run(torch.cat([prefix.expand(rows, -1, -1), items], 1))[:, len(prefix) :]
        start = before.flatten(0, 1)[None].contiguous()
        outputs = self._run(tokens.expand(rows * n, -1, -1), start)
        return self._back(outputs).reshape(rows, n, len(tokens), -1)

    def _run(self, vectors: Tensor, start: Tensor | None = None) -> Tensor:
        # cuDNN keeps what a gradient needs in training mode only; one layer drops nothing out
        self.gru.train()
        outputs: Tensor = self.gru(self.embedding_dropout(vectors), start)[0]
        return outputs

    def _back(self, outputs: Tensor) -> Tensor:
        states: Tensor = self.back(self.output_dropout(outputs))
        return states


@dataclass(frozen=True)
class BidirectionalReader:
    """Tokens in the encoder of BERT4Rec, which knows more than V items: they see each other."""

    encoder: BidirectionalEncoder
    n_items: int

    @property
    def table(self) -> Tensor:
        """Item embeddings (V + 1, D)."""
        return self.encoder.items.weight[: self.n_items + 1]

    def embed(self, items: Tensor) -> Tensor:
        """E[s] + P, (B, n, D)."""
        vectors: Tensor = self.encoder.items(items)
        return vectors + self.encoder.positions.weight[: items.shape[1]]

    def states(self, vectors: Tensor, lengths: Tensor, places: Tensor | None = None) -> Tensor:
        """See `CausalReader`; `lengths` hides the padding."""
        states: Tensor = self.encoder.dropout(self.encoder.first_norm(vectors))
        for block in self.encoder.blocks[:-1]:
            states = block(states, lengths)
        result: Tensor = self.encoder.blocks[-1](states, lengths, places)
        return result

    def everywhere(self, prefix: Tensor, items: Tensor, tokens: Tensor) -> Tensor:
        """See `CausalReader`: items see later ones, so each prefix is a row: n times the cost."""
        rows, n, width = items.shape
        lengths = torch.arange(1, n + 1, device=items.device).repeat(rows)
        repeated = items[:, None].expand(-1, n, -1, -1).reshape(rows * n, n, width)
        return read_tokens(self, prefix, repeated, lengths, tokens).view(rows, n, len(tokens), -1)


Reader = CausalReader | RecurrentReader | BidirectionalReader


class IntentDistiller(nn.Module):
    """The prefix and intent tokens, N(0, s²) with s the spread of the item embeddings.

    The encoder is no part of it, but is given with each call.

    Args:
        reader: the encoder.
        num_prefix: k; with 0 there is no prefix.
        num_intents: m.
    """

    def __init__(self, reader: Reader, num_prefix: int, num_intents: int) -> None:
        super().__init__()
        width = reader.table.shape[1]
        self.tokens = nn.Parameter(torch.randn(num_intents, width))
        self.prefix = nn.Parameter(torch.randn(num_prefix, width)) if num_prefix else None
        self.spread = 1.0
        self.rescale(reader)

    @torch.no_grad()
    def rescale(self, reader: Reader) -> None:
        """Give untrained tokens the spread of other item embeddings."""
        spread = float(reader.table[PAD + 1 :].std())
        for parameter in self.parameters():
            parameter.mul_(spread / self.spread)
        self.spread = spread

    def forward(self, reader: Reader, items: Tensor, lengths: Tensor) -> Tensor:
        """The intents (B, m, D) of items (B, n), of which the first `lengths` (B,) are real."""
        return read_tokens(reader, self._prefix(), reader.embed(items), lengths, self.tokens)

    def everywhere(self, reader: Reader, items: Tensor) -> Tensor:
        """The intents (B, n, m, D) of every prefix of items (B, n)."""
        return reader.everywhere(self._prefix(), reader.embed(items), self.tokens)

    def _prefix(self) -> Tensor:
        return self.tokens[:0] if self.prefix is None else self.prefix


def read_tokens(
    reader: Reader, prefix: Tensor, items: Tensor, lengths: Tensor, tokens: Tensor
) -> Tensor:
    """The states of tokens that follow each row's last item.

    Args:
        reader: the encoder.
        prefix: (k, D).
        items: (B, n, D), embedded.
        lengths: (B,) how many of them are real.
        tokens: (m, D).

    Returns:
        (B, m, D).
    """
    vectors = place_tokens(prefix, items, lengths, tokens)
    first = len(prefix) + lengths[:, None]
    places = first + torch.arange(len(tokens), device=items.device)
    return reader.states(vectors, lengths + len(prefix) + len(tokens), places)


def place_tokens(prefix: Tensor, items: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
    """Prefix, real items, tokens, then padding: (B, k + n + m, D); see `read_tokens`."""
    rows, n, width = items.shape
    k, m = len(prefix), len(tokens)
    whole = torch.cat([prefix.expand(rows, -1, -1), items, tokens.expand(rows, -1, -1)], 1)
    column = torch.arange(k + n + m, device=items.device)
    end = k + lengths[:, None]  # of the real items
    # a rotation of what stands after them: the tokens move n - length to the left
    source = torch.where(column < end, column, column + n - lengths[:, None])
    source = torch.where(column < end + m, source, column - m)
    return whole.gather(1, source[:, :, None].expand(-1, -1, width))


def per_position_mask(k: int, n: int, m: int, device: torch.device) -> Tensor:
    """What is seen where m tokens stand for each of n items, (L, L) with L = k + n + n m.

    Prefix and items see what precedes them among prefix and items. Token (t, j) sees the prefix,
    items up to t, and tokens (t, 1 … j).
    """
    number = torch.arange(k + n + n * m, device=device)
    context = number < k + n
    position = torch.where(context, number - k, (number - k - n) // max(m, 1))
    before = context & (number - k <= position[:, None])
    own = ~context & ~context[:, None] & (position == position[:, None])
    return before | (own & (number <= number[:, None]))


def masked_block(block: Any, queries: Tensor, states: Tensor, visible: Tensor) -> Tensor:
    """A block of SASRec under any mask, (B, S, D).

    Args:
        block: a `SASRecBlock` or a `BertBlock`.
        queries: (B, S, D) those of the states that are wanted.
        states: (B, L, D).
        visible: (S, L) or (B, 1, S, L), which states a query sees.
    """
    if isinstance(block, SASRecBlock):
        query = block.attention_norm(queries)
        mixed = block.forward_norm(query + _attend(block.attention, query, states, visible))
        result: Tensor = block.feed_forward(mixed) + mixed
    else:
        seen = block.dropout(_attend(block.attention, queries, states, visible))
        mixed = block.attention_norm(queries + seen)
        result = block.forward_norm(mixed + block.dropout(block.feed_forward(mixed)))
    return result


def _attend(
    attention: CausalSelfAttention, queries: Tensor, context: Tensor, visible: Tensor
) -> Tensor:
    shape = (len(queries), -1, attention.heads, queries.shape[2] // attention.heads)
    key, value = attention.key_value(context).chunk(2, dim=-1)
    parts = (attention.query(queries), key, value)
    query, key, value = (part.reshape(shape).transpose(1, 2) for part in parts)
    rate = attention.dropout if attention.training else 0.0
    mixed = scaled_dot_product_attention(query, key, value, visible, rate)
    result: Tensor = attention.out(mixed.transpose(1, 2).reshape(queries.shape))
    return result

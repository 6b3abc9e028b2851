"""A SASRec that a careful person writes by hand: plain torch, no library, nothing shared with ours.

It is the yardstick of `sasrec_epoch.py`: batches bucketed by length, targets picked out before the
output layer, a softmax in chunks whose gradient is made in place, fused Adam.
"""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW, WIDTH, HEADS, BLOCKS, DROPOUT, BATCH = 50, 64, 2, 2, 0.5, 256


class ChunkedSoftmax(torch.autograd.Function):
    """Cross-entropy whose gradient replaces the logits, 512 rows at a time."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, labels: Tensor) -> Tensor:
        d_states, d_table = torch.empty_like(states), torch.zeros_like(table)
        loss = 0.0
        for i in range(0, len(states), 512):
            h, y = states[i : i + 512], labels[i : i + 512, None]
            logits = h @ table.T
            logits[:, 0] = -torch.inf
            right = logits.gather(1, y)
            top = logits.amax(1, keepdim=True)
            total = logits.sub_(top).exp_().sum(1, keepdim=True)
            loss += float((total.log() + top - right).sum())
            logits.div_(total)
            logits.scatter_add_(1, y, torch.full_like(right, -1.0))
            torch.mm(logits, table, out=d_states[i : i + 512])
            d_table.addmm_(logits.T, h)
        ctx.save_for_backward(d_states / len(states), d_table / len(states))
        return states.new_tensor(loss / len(states))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        d_states, d_table = ctx.saved_tensors
        return d_states * gradient, d_table * gradient, None


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        rate = DROPOUT if self.training else 0.0
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(b, n, WIDTH))
        x = self.norm1(x + functional.dropout(y, rate))
        return self.norm2(x + functional.dropout(self.down(functional.gelu(self.up(x))), rate))


class PlainSASRec(nn.Module):
    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.items, self.positions = nn.Embedding(n_items + 1, WIDTH), nn.Embedding(WINDOW, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.items(x) + self.positions.weight[: x.shape[1]])
        states: Tensor = self.blocks(functional.dropout(h, DROPOUT if self.training else 0.0))
        return states


def bucketed(sequences: list[np.ndarray], rng: np.random.Generator) -> Iterator[Tensor]:
    """Batches of similar length in random order, (B, L + 1) padded on the right."""
    lengths = np.array([len(s) for s in sequences])
    order = np.argsort(lengths + rng.random(len(lengths)))
    batches = np.array_split(order, -(-len(order) // BATCH))
    for number in rng.permutation(len(batches)):
        batch = batches[number]
        rows = np.zeros((len(batch), lengths[batch].max()), dtype=np.int64)
        for i, s in enumerate(batch):
            rows[i, : lengths[s]] = sequences[s]
        yield torch.from_numpy(rows)


class PlainLoop:
    """Trains on the last 51 training items of each user and ranks the validation item."""

    def __init__(self, items: np.ndarray, offsets: np.ndarray) -> None:
        self.sequences = [items[a:b] for a, b in pairwise(offsets)]
        torch.manual_seed(0)
        self.model = PlainSASRec(int(items.max()))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.rng = np.random.default_rng(0)

    def epoch(self) -> float:
        """Seconds of one epoch."""
        began = time.perf_counter()
        self.model.train()
        training = [s[:-2][-WINDOW - 1 :] for s in self.sequences]
        for rows in bucketed(training, self.rng):
            targets = rows[:, 1:]
            real = targets > 0
            states = self.model(rows[:, :-1])[real]
            loss = ChunkedSoftmax.apply(states, self.model.items.weight, targets[real])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return time.perf_counter() - began

    @torch.no_grad()
    def evaluate(self) -> float:
        """Seconds to rank every user's validation item, history removed."""
        began = time.perf_counter()
        self.model.eval()
        by_length = sorted(self.sequences, key=len)
        ranks = []
        for i in range(0, len(by_length), BATCH):
            part = by_length[i : i + BATCH]
            width = min(WINDOW, max(len(s) for s in part) - 2)
            rows = torch.zeros(len(part), width, dtype=torch.long)
            last = torch.tensor([min(WINDOW, len(s) - 2) - 1 for s in part])
            for j, s in enumerate(part):
                inputs = torch.from_numpy(s[:-2][-WINDOW:].astype(np.int64))
                rows[j, : len(inputs)] = inputs
            states = self.model(rows)[torch.arange(len(part)), last]
            scores = states @ self.model.items.weight.T
            target = torch.tensor([int(s[-2]) for s in part])
            goal = scores.gather(1, target[:, None])
            scores[:, 0] = -torch.inf
            for j, s in enumerate(part):
                scores[j, s[:-2].astype(np.int64)] = -torch.inf
            ranks.append(1 + (scores > goal).sum(1))
        torch.cat(ranks)
        return time.perf_counter() - began

"""LightRec: items as sums of codewords (Lian et al., WWW 2020, DOI 10.1145/3366423.3380151).

An item is one word from each of B codebooks C_b of W words. Words are selected one book after the
other, each from what the earlier ones have left of the item's full vector q_i:

    x_1 = q_i,   w_b = argmax_w x_b^T A_b c_{b,w},   o_b = c_{b,w_b},   x_{b+1} = (x_b - o_b) G
    q̂_i = Σ_b o_b,   score(u, i) = p_u · q̂_i

Once trained, an item is its B words' numbers, B log2 W bits, and q_i is not needed. The argmax
passes its gradient on as the softmax of the same logits at temperature t would (straight-through).
With j_1 … j_K unseen by u, and the mean over training pairs (u, i),

    L = mean_k -log σ(p_u·q̂_i - p_u·q̂_{j_k}) + mean_k -log σ(p_u·q_i - p_u·q_{j_k})
        + w_d D_u + λ/2 (‖p_u‖² + ‖q̂_i‖² + ‖q_i‖² + Σ_k ‖q̂_{j_k}‖² + ‖q_{j_k}‖²)
    D_u = - Σ_{v ∈ top(u)} softmax(p_u·q_v / T)_v log softmax(p_u·q̂_v / T)_v

D_u distils the full vectors' scores into those of the sums, over the items that the full vectors
rank first for the user at the beginning of the epoch; its first factor takes no gradient. The order
of events is not used.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softmax, softplus

from datamodules.types import PAD, Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card
from intentbench.nn.negatives import UniformNegatives

USERS_AT_ONCE = 1024
"""Users whose top items are looked up at a time."""

CARD = Card(
    title="LightRec",
    paper="Lian et al., LightRec: A Memory and Search-Efficient Recommender System, WWW 2020, "
    "DOI 10.1145/3366423.3380151",
    code="github.com/haoyu0408/LightRec @ b20d506",
    tiny={
        "width": 16,
        "books": 3,
        "words": 8,
        "negatives": 3,
        "top": 5,
        "l2": 1e-4,
        "learning_rate": 2e-2,
    },
    deviations=(
        "the full vectors are learnt beside the codebooks, by their own BPR loss with the same "
        "users; the code loads vectors trained before and keeps them fixed",
        "distillation is the softened list-wise cross-entropy that the code defines, with its "
        "temperature 0.5 and the weight 0.2 that stands there commented out, over each user's top "
        "items, renewed each epoch; the code as published fits all users' scores by squares at "
        "weight 1e-9, and its lists are the negatives",
        "selection multiplies the residual by G, as the code does for its model 'rnn'; its run "
        "script leaves G out",
        "L2 counts items twice, as sums and as full vectors; the code, whose full vectors are "
        "fixed, counts the sums alone",
        "the authors' batch has 1024 events; here it is the suite's, 256 "
        "unless a spec says otherwise",
    ),
    personal=True,
)


class LightRec(GradientRecommender):
    """Matrix factorisation whose item vectors are quantised, on rows of one training event each.

    Args:
        n_items: V.
        n_users: N.
        width: D of all vectors.
        books: B, the number of codebooks.
        words: W, the words of each.
        temperature: t of the softmax that stands in for the argmax in the backward pass.
        negatives: K items for each training event.
        distillation: w_d.
        top: items of the list that is distilled.
        distillation_temperature: T.
        l2: λ, on the vectors of the batch only.
        learning_rate: of Adam.
    """

    CARD = CARD
    layout = "pair"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 32,
        books: int = 4,
        words: int = 256,
        temperature: float = 0.9,
        negatives: int = 5,
        distillation: float = 0.2,
        top: int = 20,
        distillation_temperature: float = 0.5,
        l2: float = 1e-3,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate)
        self.books = books
        self.words = words
        self.temperature = temperature
        self.negatives = negatives
        self.distillation = distillation
        self.distillation_temperature = distillation_temperature
        self.l2 = l2
        self.users = nn.Embedding(n_users, width)
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)
        self.codebooks = nn.Parameter(torch.empty(books, words, width))
        self.match = nn.Parameter(torch.empty(books, width, width))
        self.onward = nn.Parameter(torch.empty(width, width))
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items.weight[1:], std=0.1)
        for matrix in (*self.codebooks, *self.match, self.onward):
            nn.init.xavier_normal_(matrix)
        self.sampler: UniformNegatives | None = None
        self.top: Tensor
        lists = torch.zeros(n_users, min(top, n_items), dtype=torch.long)
        self.register_buffer("top", lists, persistent=False)

    # items as words ------------------------------------------------------------------------

    @property
    def bits_per_item(self) -> int:
        """What an item takes up once trained: B ⌈log2 W⌉ bits."""
        return self.books * math.ceil(math.log2(self.words))

    @torch.no_grad()
    def codes(self) -> Tensor:
        """The words of each item, (V + 1, B) numbers in 0..W-1."""
        return self._select(self.items.weight)[0]

    def rebuild(self, codes: Tensor) -> Tensor:
        """q̂ (…, D) of words (…, B): all that is needed besides are the codebooks."""
        vectors = self.codebooks[0][codes[..., 0]]
        for book in range(1, self.books):
            vectors = vectors + self.codebooks[book][codes[..., book]]
        return vectors

    def _select(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The words (M, B) of full vectors (M, D), and their sums q̂ (M, D)."""
        words: list[Tensor] = []
        sums, rest = torch.zeros_like(vectors), vectors
        for book, match in zip(self.codebooks, self.match, strict=True):
            # divided where it is narrow; the argmax does not mind
            logits = (rest @ match / self.temperature) @ book.T
            words.append(logits.argmax(1))
            word = book[words[-1]]
            if torch.is_grad_enabled():
                soft = softmax(logits, 1) @ book.detach()
                # the value is the word itself, to the bit; the softmax only carries the gradient
                word = word + (soft - soft.detach())
            sums = sums + word  # in the order of `rebuild`
            rest = (rest - word) @ self.onward
        return torch.stack(words, 1), sums

    def _quantised(self, items: Tensor) -> Tensor:
        """q̂ (B, M, D) of items (B, M): selected for once an item, however often it stands there."""
        distinct, places = torch.unique(items, return_inverse=True)
        sums: Tensor = self._select(self.items(distinct))[1][places]
        return sums

    # training and ranking ------------------------------------------------------------------

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has had."""
        self.sampler = UniformNegatives(training).to(self.device)

    def on_epoch(self) -> None:
        """Look up the items that the full vectors rank first for each user."""
        if not self.distillation:
            return
        for start in range(0, self.n_users, USERS_AT_ONCE):
            part = slice(start, start + USERS_AT_ONCE)
            scores = self.users.weight[part] @ self.items.weight[1:].T
            self.top[part] = 1 + scores.topk(self.top.shape[1]).indices

    def encode(self, batch: Batch) -> Tensor:
        """p_u, (B, D)."""
        users: Tensor = self.users(batch.users)
        return users

    def item_table(self) -> Tensor:
        """q̂, (V + 1, D)."""
        return self._select(self.items.weight)[1]

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The four terms of the module's docstring: "bpr", "full", "distillation" and "l2"."""
        if self.sampler is None:
            raise RuntimeError("negatives need the training events: call prepare first")
        users = self.users(batch.users)
        negatives = self.sampler.sample(batch.users, self.negatives)
        items = torch.cat([batch.labels[:, None], negatives], 1)  # (B, 1 + K)
        listed = self.top[batch.users] if self.distillation else items[:, :0]
        both = self._quantised(torch.cat([items, listed], 1))
        sums, pupils = both[:, : items.shape[1]], both[:, items.shape[1] :]
        full = self.items(items)
        squares = sums.square().sum((1, 2)) + full.square().sum((1, 2)) + users.square().sum(1)
        terms = {
            "bpr": _bpr(users, sums),
            "full": _bpr(users, full),
            "l2": self.l2 / 2 * squares.mean(),
        }
        total = terms["bpr"] + terms["full"] + terms["l2"]
        if self.distillation:
            terms["distillation"] = self._distil(users, self.items(listed), pupils)
            total = total + self.distillation * terms["distillation"]
        return terms | {"total": total}

    def _distil(self, users: Tensor, full: Tensor, sums: Tensor) -> Tensor:
        """D_u, a mean over users (B, D), of full vectors and sums (B, n, D) of their top items."""
        pupil = torch.bmm(sums, users[:, :, None]).squeeze(2)
        teacher = torch.bmm(full, users[:, :, None]).squeeze(2).detach()
        wanted = softmax(teacher / self.distillation_temperature, 1)
        return -(wanted * log_softmax(pupil / self.distillation_temperature, 1)).sum(1).mean()


def _bpr(users: Tensor, items: Tensor) -> Tensor:
    """Mean of -log σ(s_0 - s_k) over k ≥ 1 and rows, s = p·q, of (B, D) and (B, 1 + K, D)."""
    scores = torch.bmm(items, users[:, :, None]).squeeze(2)
    return softplus(scores[:, 1:] - scores[:, :1]).mean()

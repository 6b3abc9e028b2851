"""ReaRec: latent reasoning steps after the last item (Tang et al., 2025, arXiv:2503.22675).

The encoder f of L blocks goes on for K steps on its own last state, at positions of their own:

    h_i^0 = e_{v_i} + p_i,  i = 1 … n                                                      (Eq. 2)
    h_{n+k}^0 = h_{n+k-1}^L + p_k^R,  k = 1 … K                                            (Eq. 4)
    r_k = h_{n+k}^L,  k = 0 … K;  ŷ = softmax(h_u E^T)                                     (Eq. 5)

Items never read steps, so that their keys and values are made once and kept. The base temperature
is τ; what the paper sums over steps is divided by K + 1, so that K does not rescale the loss.

ERL (`erl`, ensemble): all steps speak for the user, and are kept from saying the same,

    h_u = 1/(K+1) Σ_k r_k,  ŷ = softmax(h_u E^T / τ),  ŷ^(k) = softmax(r_k E^T / τ),      (Eq. 7)
    L = -log ŷ_{v+} - λ mean_{i≠j} KL(ŷ^(i) || ŷ^(j))                                      (Eq. 8)

PRL (`prl`, progressive): h_u = r_K; early steps are trained at higher temperatures, and a noisy
rollout r̃ must find its own step again among those of the batch's rows,

    τ_k = τ α^(K-k),  L_Rec = mean_k -log softmax(r_k E^T / τ_k)_{v+}                  (Eqs. 9, 10)
    h̃_{n+k}^0 = h_{n+k}^0 + ε,  ε ~ N(0, γ² I)                                            (Eq. 11)
    L_RCL = 1/(K+1) Σ_{k≥1} -log( e^{r̃_k·r_k/τ} / Σ_{r of the batch} e^{r̃_k·r/τ} )       (Eq. 12)
    L = L_Rec + λ_RCL L_RCL                                                                (Eq. 13)

With λ_RCL = 1 that is the paper's K + 1 cross-entropies and K contrasts, over K + 1.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from datamodules.rows import Layout
from datamodules.types import Batch, SequenceBatch
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.divergence import mean_divergence
from intentbench.nn.processes import gather
from intentbench.nn.transformer import BertBlock, SequenceEncoder, take_last

CARD = Card(
    title="ReaRec",
    paper="Tang et al., Think Before Recommend: Unleashing the Latent Reasoning Power for "
    "Sequential Recommendation, 2025, arXiv:2503.22675",
    code="github.com/TangJiakai/ReaRec @ 7f46432",
    tiny={
        "variant": "prl",
        "temperature": 0.5,
        "alpha": 1.5,
        "gamma": 0.1,
        "lambda_rcl": 0.1,  # its negatives include rows with the same target
        "width": 32,
        "blocks": 2,  # with one block both backbones are the same
        "dropout": 0.3,
        "learning_rate": 5e-3,
    },
    deviations=(
        "as in the code, ERL divides its K + 1 terms by K + 1 (Eq. 7: by K), and its logits by the "
        "base temperature",
        "KL is averaged over all ordered pairs, as in the code; the paper sums over i < j",
        "both sides of KL take the gradient, as in Eq. 8, which then has no lower bound: KL grows "
        "with -log ŷ^(j), and long training follows it at the expense of the cross-entropy; the "
        "code keeps the gradient from one side (kl_detach=True, preset erl)",
        "PRL's K + 1 cross-entropies and K contrasts are the paper's sums over K + 1; the code "
        "weighs CE(r_K) : mean earlier CE : mean contrast = 1 : 1 : 1",
        "the contrast's negatives are the rows of the suite's batch (256 unless a spec says "
        "otherwise; the authors' has 2048), prefixes of the same user or with the same target "
        "among them, as in the code",
        "gamma is the noise's standard deviation, as in the code; in Eq. 11 it is the variance",
        "inputs of the steps pass through the encoder's first LayerNorm and a dropout of 0.2, as "
        "in the code; the items' inputs keep the encoder's own dropout, where the code has 0.2",
        "the noisy rollout reads the items' pass of the clean one; the code encodes the items "
        "twice, with other dropout",
        "noise acts from the first epoch; the code starts it after two",
        "history is removed from the ranking where the protocol says so; the code leaves it in",
        "width 64, inner width 4 D, as in the suite's SASRec, so that a comparison isolates the "
        "steps; the paper has width 256, its code an inner width of 300",
        "backbone bert4rec reads a row's items from both sides, but is trained on the next item "
        "at the last position, as ReaRec is, not on gaps",
        "windows are padded on the right and positions counted from the first item",
    ),
    effects={"lambda_kl": "variant erl only", "kl_detach": "variant erl only"},
)

Memory = tuple[Tensor, list[tuple[Tensor, Tensor]]]
"""Which of P positions may be read, (B, P), and their keys and values in each block."""


class ReaRec(GradientRecommender):
    """A Transformer that goes on for K steps after the last item.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: items at most; steps come on top.
        variant: "erl" or "prl", see the module's docstring.
        backbone: items read what precedes them ("sasrec") or all items of the row ("bert4rec").
        steps: K; 0 leaves the backbone.
        temperature: τ of the logits and the contrast.
        lambda_kl: λ of ERL.
        kl_detach: of each pair of ERL's steps, keep the gradient from the second, as the code does;
            without that the objective has no lower bound.
        alpha: α of PRL.
        gamma: standard deviation of PRL's noise.
        lambda_rcl: λ_RCL of PRL, 1 in the paper.
        step_dropout: of the inputs of the steps.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    layout: Layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        variant: Literal["erl", "prl"] = "prl",
        backbone: Literal["sasrec", "bert4rec"] = "sasrec",
        steps: int = 2,
        temperature: float = 0.07,
        lambda_kl: float = 0.05,
        kl_detach: bool = False,
        alpha: float = 5.0,
        gamma: float = 0.01,
        lambda_rcl: float = 1.0,
        step_dropout: float = 0.2,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.variant = variant
        self.causal = backbone == "sasrec"
        self.steps = steps
        self.temperature = temperature
        self.lambda_kl = lambda_kl
        self.kl_detach = kl_detach
        self.gamma = gamma
        self.lambda_rcl = lambda_rcl
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        self.step_dropout = nn.Dropout(step_dropout)
        with torch.random.fork_rng(devices=()):  # without steps it is the backbone, bit for bit
            self.step_positions = nn.Parameter(0.02 * torch.randn(steps, width))
        self.temperatures: Tensor
        falling = temperature * alpha ** torch.arange(steps, -1, -1.0)
        self.register_buffer("temperatures", falling[:, None], persistent=False)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def encode(self, batch: Batch) -> Tensor:
        """h_u (B, D): the mean of the steps (ERL), or the last of them (PRL)."""
        states, _ = self.rollouts(batch)
        return states.mean(1) if self.variant == "erl" else states[:, -1]

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy of the next item, and what ERL or PRL adds to it."""
        if self.variant == "erl":
            return self._ensemble_loss(self.rollouts(batch)[0], batch.labels)
        if not self.steps or not self.lambda_rcl:
            return {"total": self._progressive(self.rollouts(batch)[0], batch.labels)}
        # drawn for the whole batch at once: the same however it is cut in groups
        shape = (len(batch.users), *self.step_positions.shape)
        noise = self.gamma * torch.randn(shape, device=batch.items.device)
        states, noisy = self.rollouts(batch, noise)
        recommendation = self._progressive(states, batch.labels)
        contrast = step_contrast(noisy, states[:, 1:], self.temperature)
        total = recommendation + self.lambda_rcl * contrast
        return {"total": total, "recommendation": recommendation, "contrast": contrast}

    def _ensemble_loss(self, states: Tensor, labels: Tensor) -> dict[str, Tensor]:
        user = states.mean(1) / self.temperature
        recommendation = chunked_cross_entropy(user, self.item_table(), labels)
        if not self.steps or not self.lambda_kl:
            return {"total": recommendation}
        divergence = mean_divergence(states / self.temperature, self.item_table(), self.kl_detach)
        total = recommendation - self.lambda_kl * divergence
        return {"total": total, "recommendation": recommendation, "divergence": divergence}

    def _progressive(self, states: Tensor, labels: Tensor) -> Tensor:
        """Mean over rows and steps of the cross-entropy, each step at its own temperature."""
        queries = (states / self.temperatures).flatten(0, 1)
        targets = labels.repeat_interleave(self.steps + 1)
        return chunked_cross_entropy(queries, self.item_table(), targets)

    def rollouts(self, batch: Batch, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The states r_0 … r_K of each row, (B, K + 1, D), and with noise r̃_1 … r̃_K, (B, K, D).

        Args:
            batch: any batch.
            noise: (B, K, D) added to the inputs of the steps; None gives no r̃, (B, 0, D).
        """
        clean, noisy = [], []
        for start, stop, width in batch.groups:
            state, items = self.read(batch.items[start:stop, :width], batch.lengths[start:stop])
            states, inputs, memory = [state], [state[:, :0]], items
            for position in self.step_positions:
                inputs.append(states[-1] + position)
                state, memory = self.step(inputs[-1], memory)
                states.append(state)
            clean.append(torch.cat(states, 1))
            given = torch.cat(inputs, 1)
            if noise is None:
                noisy.append(given[:, :0])
            else:  # noise comes upon the clean inputs: all are known, and one pass makes all steps
                noisy.append(self.step(given + noise[start:stop], items)[0])
        return torch.cat(clean), torch.cat(noisy)

    def read(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Memory]:
        """The state r_0 after each row's last item, (B, 1, D), and what steps may read.

        Args:
            items: (B, L), `PAD` on the right.
            lengths: (B,).
        """
        encoder, last = self.encoder, (lengths - 1).clamp(min=0)
        visible = torch.arange(items.shape[1], device=items.device) <= last[:, None]
        known = visible[:, None, None]
        states = encoder.items(items) + encoder.positions.weight[: items.shape[1]]
        states = encoder.dropout(encoder.first_norm(states))
        *lower, top = self._blocks()
        pairs = []
        for block in lower:
            pairs.append(_key_value(block, states))
            states = _apply(block, states, pairs[-1], None if self.causal else known)
        pairs.append(_key_value(top, states))
        return _apply(top, take_last(states, last), pairs[-1], known), (visible, pairs)

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The states h^L (B, S, D) of S further positions, and the memory with these.

        Args:
            inputs: (B, S, D) h^0 of positions that read the memory and, causally, each other.
            memory: of P positions.
        """
        rows, count, _ = inputs.shape
        among = torch.ones(count, count, dtype=torch.bool, device=inputs.device).tril()
        before = memory[0][:, None].expand(rows, count, -1)
        visible = torch.cat([before, among.expand(rows, -1, -1)], 2)
        states = self.step_dropout(self.encoder.first_norm(inputs))
        pairs = []
        for block, (keys, values) in zip(self._blocks(), memory[1], strict=True):
            key, value = _key_value(block, states)
            pairs.append((torch.cat([keys, key], 2), torch.cat([values, value], 2)))
            states = _apply(block, states, pairs[-1], visible[:, None])
        return states, (visible[:, -1], pairs)

    def _blocks(self) -> list[BertBlock]:
        return cast("list[BertBlock]", list(self.encoder.blocks))


def _split(block: BertBlock, vectors: Tensor) -> Tensor:
    """(B, P, D) to (B, heads, P, D / heads)."""
    return vectors.reshape(*vectors.shape[:2], block.attention.heads, -1).transpose(1, 2)


def _key_value(block: BertBlock, states: Tensor) -> tuple[Tensor, Tensor]:
    key, value = block.attention.key_value(states).chunk(2, dim=-1)
    return _split(block, key), _split(block, value)


def _apply(
    block: BertBlock, queries: Tensor, pair: tuple[Tensor, Tensor], visible: Tensor | None
) -> Tensor:
    """A block at (B, S, D), given what it reads; `visible` None: positions up to its own."""
    attention = block.attention
    mixed = functional.scaled_dot_product_attention(
        _split(block, attention.query(queries)),
        *pair,
        attn_mask=visible,
        dropout_p=attention.dropout if attention.training else 0.0,
        is_causal=visible is None,
    )
    mixed = attention.out(mixed.transpose(1, 2).reshape(queries.shape))
    states = block.attention_norm(queries + block.dropout(mixed))
    result: Tensor = block.forward_norm(states + block.dropout(block.feed_forward(states)))
    return result


def step_contrast(noisy: Tensor, clean: Tensor, temperature: float) -> Tensor:
    """Eq. 12 of r̃ and r, both (B, K, D): mean over rows of the sum over steps, over K + 1."""
    noisy, clean = gather(noisy), gather(clean)
    similarity = torch.einsum("bkd,ckd->kbc", noisy, clean) / temperature
    terms = similarity.logsumexp(2) - similarity.diagonal(dim1=1, dim2=2)
    return terms.mean(1).sum() / (len(terms) + 1)

"""IGR-SR: intent-guided reasoning (Shao & Zhou 2025, arXiv:2512.14034), partly reconstructed.

    T_I = last m states of FrozenEncoder(P, E_I[i_1 … i_n] + pos, I)     LID: only P and I learn
    T   = LN(W_2 GELU(W_1 T_I + b_1) + b_2)                              projection
    U   = LN(X + Drop(MHA(X, T, T)))                                     IDR: deliberation,
    X'  = FFN and causal self-attention of U, as in SASRec                    then decision
    score(v) = h · e_v,  h = X at the last item
    L = -log softmax(h Eᵀ)[next] + λ InfoNCE(h^(1), h^(2))               ICR

where h^(v) is h with some intents masked at random, cosines over τ, both directions, against the
other rows of the batch but those of the same user. The frozen encoder is trained first.

The roles of the parts, queries, keys, values and masks are the paper's; it was not read in full
and no code was published. Sizes, norms, the loss and every setting are reconstructed.
"""

import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from datamodules.errors import RequestError
from datamodules.types import Batch, SequenceBatch
from intentbench.models.card import Card
from intentbench.models.intent import IntentRecommender, Intents
from intentbench.models.pretrained import EncoderArgument, PretrainedRecommender
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.deliberation import (
    DeliberativeReasoner,
    Fusion,
    apply_masks,
    draw_rounds,
    intent_signs,
    projection,
)
from intentbench.nn.grouping import encode_last
from intentbench.nn.info_nce import info_nce
from intentbench.nn.intent_distiller import IntentDistiller
from intentbench.nn.transformer import SequenceEncoder

_BLOCK = ("attention.query", "attention.key_value", "attention.out", "attention_norm",
          "feed_forward.0", "feed_forward.2", "forward_norm")  # fmt: skip
_LAYERS = ("first_norm", *(f"blocks.0.{layer}" for layer in _BLOCK))

CARD = Card(
    title="IGR-SR (partly reconstructed)",
    paper="Shao & Zhou, Intent-Guided Reasoning for Sequential Recommendation, arXiv:2512.14034",
    code="",
    tiny={
        "encoder": "sasrec",
        "encoder_arguments": {"encoder": "bert", "width": 32, "blocks": 1, "heads": 2},
        "num_prefix": 2,
        "num_intents": 3,
        "width": 32,
        "blocks": 1,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    deviations=(
        "no code was published and the full text was not at hand. The paper's: prefix and intent "
        "tokens in a frozen SASRec, a projection, cross-attention from items to intents before "
        "causal self-attention and FFN, InfoNCE between two masked copies. Reconstructed: all "
        "sizes, residuals and norms, the softmax, cosines with in-batch negatives, every setting",
        "one row a prefix, its last position the target: intents that read a whole sequence would "
        "show its positions their targets. Layout 'all' gives each position the intents of its own "
        "prefix, which is another model",
        "tokens have no positions, stand before the encoder's first normalisation, and start with "
        "the spread of the item embeddings",
        "a masked intent is a vector of zeros, or with mask='drop' no key; no view is empty, and "
        "two views always differ; views of the same user are no negatives of each other",
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one",
    ),
    frozen=(
        "base.encoder.items.weight",
        "base.encoder.positions.weight",
        *(f"base.encoder.{layer}.{part}" for layer in _LAYERS for part in ("weight", "bias")),
    ),
    effects={
        "encoder": "which method is frozen; its type tells no other value",
        "encoder_arguments": "what is frozen; their type tells no other value",
    },
)


class IGRSR(PretrainedRecommender, IntentRecommender):
    """IGR-SR, with a switch for each ablation and each open point.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        encoder: key of the method whose encoder is frozen: sasrec, gru4rec or bert4rec.
        encoder_arguments: its arguments, see `PretrainedRecommender`.
        freeze_encoder: whether the encoder stays as it is.
        num_prefix: k, prefix tokens.
        num_intents: m, intent tokens.
        intents: "distilled" by the frozen encoder, or "free": m vectors that read no sequence.
        width: D of the main network.
        blocks: its layers L.
        heads: its attention heads, of both kinds of attention.
        dropout: of its embeddings, attention and layers.
        fusion: see `nn.deliberation.DeliberativeReasoner`; "none" leaves SASRec.
        layout: "prefix", every prefix a row; or "all", one row a user, where each position has the
            intents of its own prefix and the last one is contrasted.
        p_mask: probability that an intent is masked in a view.
        mask: "zero" for a vector of zeros, or "drop" for no vector.
        lambda_icr: λ.
        temperature: τ.
        init_items: item embeddings start "random", or as those of the frozen encoder ("lid").
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        encoder: str = "sasrec",
        encoder_arguments: dict[str, EncoderArgument] | None = None,
        freeze_encoder: bool = True,
        num_prefix: int = 4,
        num_intents: int = 4,
        intents: Literal["distilled", "free"] = "distilled",
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        fusion: Fusion = "cross",
        layout: Literal["all", "prefix"] = "prefix",
        p_mask: float = 0.2,
        mask: Literal["zero", "drop"] = "zero",
        lambda_icr: float = 0.1,
        temperature: float = 0.1,
        init_items: Literal["random", "lid"] = "random",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            n_items, n_users, window, encoder, encoder_arguments, freeze_encoder,
            learning_rate, weight_decay,
        )  # fmt: skip
        self.layout = layout
        self.num_intents = num_intents
        self.free = intents == "free"
        self.fusion = fusion
        self.p_mask, self.mask = p_mask, mask
        self.lambda_icr, self.temperature = lambda_icr, temperature
        self.items_from_encoder = init_items == "lid"
        self._check(width)
        network = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        with torch.random.fork_rng(devices=()):  # without intents it is SASRec, bit for bit
            self.reasoner = DeliberativeReasoner(network, heads, dropout, fusion)
            if fusion != "none":
                prefix = 0 if self.free else num_prefix
                self.distiller = IntentDistiller(self.reader, prefix, num_intents)
                self.project = projection(self.reader.table.shape[1], width)
        self._start()

    def _check(self, width: int) -> None:
        """Refuse what does not go together."""
        given = self.reader.table.shape[1]
        if self.num_intents < 1:
            raise RequestError("num_intents must be at least 1; fusion 'none' leaves intents out")
        if self.fusion == "none" and self.lambda_icr:
            raise RequestError("fusion 'none' has no intents to be masked; set lambda_icr to 0")
        if self.fusion == "concat" and self.layout == "all":
            raise RequestError("fusion 'concat' has one set of intents a row; set layout: prefix")
        if self.fusion != "cross" and self.mask == "drop":
            raise RequestError(f"mask 'drop' needs fusion 'cross', not {self.fusion!r}")
        if self.items_from_encoder and given != width:
            raise RequestError(f"init_items 'lid': width is {width}, that of the encoder {given}")
        if self.lambda_icr and self.num_intents == 1:
            warnings.warn("IGRSR: with one intent, dropout alone tells views apart", stacklevel=3)

    @torch.no_grad()
    def _start(self) -> None:
        """What the first weights owe to the frozen encoder."""
        if self.fusion != "none":
            self.distiller.rescale(self.reader)
        if self.items_from_encoder:
            self.item_table().copy_(self.reader.table)

    def load_encoder(self, state: Mapping[str, Tensor]) -> None:
        """See `PretrainedRecommender`."""
        super().load_encoder(state)
        self._start()

    def item_table(self) -> Tensor:
        """The item table (V + 1, D), tied; it is not that of the frozen encoder."""
        return self.reasoner.encoder.items.weight

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""

        def encode(items: Tensor, lengths: Tensor) -> Tensor:
            intents = self._intents(items, None if self.layout == "all" else lengths)
            return self._reason(items, intents, (lengths - 1).clamp(min=0), None)[0][0]

        return encode_last(batch, encode)

    def _intents(self, items: Tensor, lengths: Tensor | None) -> Tensor | None:
        """T (b, m, D); without lengths that of every prefix, (b, n, m, D). None: fusion "none"."""
        if self.fusion == "none":
            return None
        if self.free:
            shape = items.shape if lengths is None else items.shape[:1]
            vectors: Tensor = self.project(self.distiller.tokens)
            return vectors.expand(*shape, -1, -1)
        if lengths is None:
            raw = self.distiller.everywhere(self.reader, items)
        else:
            raw = self.distiller(self.reader, items, lengths)
        intents: Tensor = self.project(raw)
        return intents

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Recommendation, consistency, and signs of a collapse."""
        rounds = None
        if self.lambda_icr:
            device = batch.users.device
            rounds = draw_rounds(len(batch.users), self.num_intents, self.p_mask, device)
        read = [
            self._read(
                batch.items[i:j, :width],
                batch.lengths[i:j],
                None if rounds is None else rounds[:, i:j],
            )
            for i, j, width in batch.groups
        ]
        parts, views, signs = zip(*read, strict=True)
        states = torch.cat(parts)
        if self.layout == "all":
            states = states[batch.select]
        total = chunked_cross_entropy(states, self.item_table(), batch.labels)
        terms = {"recommendation": total, "state_variance": states.detach().var(0, False).mean()}
        terms |= {name: torch.cat([sign[name] for sign in signs]).mean() for name in signs[0]}
        if rounds is not None:
            first, second = torch.cat(views, 1)
            terms["consistency"] = info_nce(first, second, self.temperature, batch.users, True)
            total = total + self.lambda_icr * terms["consistency"]
        return {"total": total, **terms}

    def _read(
        self, items: Tensor, lengths: Tensor, masks: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """One pass for the intents, and one for all rounds where all want the last position.

        Args:
            items: (b, n).
            lengths: (b,).
            masks: (3, b, m) bool, or None for a single round without masks.

        Returns:
            States that predict, (b, D) or in layout "all" (b n, D); views (2, b, D), none
            without masks; signs (b,) by name.
        """
        last = lengths - 1
        if self.layout == "prefix":
            intents = self._intents(items, lengths)
            rounds, weights = self._reason(items, intents, last, masks)
            states, views = rounds[0], rounds[1:]
        else:
            intents = self._intents(items, None)
            main, weights = self.reasoner(items, intents)
            states = views = main.flatten(0, 1)
            if masks is not None:
                views, _ = self._reason(items, intents, last, masks[1:])
        signs = {} if intents is None else intent_signs(intents, weights, last)
        return states, views, signs

    def _reason(
        self, items: Tensor, intents: Tensor | None, last: Tensor, masks: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """States (R, b, D) at the last positions in R rounds, and the attention of R b rows."""
        kept = None
        if intents is not None and masks is not None:
            intents, kept = apply_masks(intents, masks, self.mask == "drop")
        states, weights = self.reasoner(items, intents, last, kept)
        return states.view(-1, len(items), states.shape[2]), weights

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the norms of the tokens' gradients: do intents learn at all?"""
        if self.fusion == "none":
            return
        for name, parameter in self.distiller.named_parameters():
            if parameter.grad is not None:
                norm = torch.linalg.vector_norm(parameter.grad)
                key = f"gradient_{name}"
                self._sums[key] = self._sums[key] + norm if key in self._sums else norm

    def intents(self, batch: SequenceBatch) -> Intents:
        """The mean intent after each item, and which of them the item looks at most.

        Raises:
            RequestError: fusion "none".
        """
        parts = [self._inspect(batch.items[i:j, :width]) for i, j, width in batch.groups]
        return Intents(**{n: torch.cat([p[n] for p in parts])[batch.select] for n in parts[0]})

    def _inspect(self, items: Tensor) -> dict[str, Tensor]:
        """What `Intents` holds, after each of the items (b, n), flattened to (b n, …)."""
        intents = self._intents(items, None)
        if intents is None:
            raise RequestError("IGRSR: fusion 'none' has no intents; nothing to inspect")
        if self.layout == "all":
            states, weights = self.reasoner(items, intents)
        else:  # each prefix has one set of intents for all of its items
            passes = [
                self.reasoner(items[:, : t + 1], intents[:, t], torch.full_like(items[:, 0], t))
                for t in range(items.shape[1])
            ]
            states = torch.cat([one.states for one in passes], 1)
            seen = [one.weights for one in passes]
            weights = None if seen[0] is None else torch.cat(seen, 3)
        found = {"vectors": intents.mean(2).flatten(0, 1), "states": states.flatten(0, 1)}
        if weights is not None:
            found["assignment"] = weights.mean((0, 2)).argmax(-1).flatten()
        return found

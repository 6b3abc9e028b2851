"""ICLRec: intent contrastive learning (Chen, Liu, Li, McAuley & Xiong, WWW 2022).

An EM algorithm whose latent variable is the user's intent, one of K clusters.

E-step, before each epoch, dropout off: z_u is the mean of u's states H(s_u); K-means on all z_u;
c_k is a centroid, scaled to length 1. M-step, each batch: k(u) is the cluster of the row's mean
state, found with dropout on and without gradient; x1, x2 are two views of the row, each after one
of crop, mask and reorder;

    L = L_next + w_s InfoNCE(vec H(x1), vec H(x2))
               + w_i ½ [InfoNCE(mean H(x1), c_k(u)) + InfoNCE(mean H(x2), c_k(u))]

(section 4 of the paper; w_i is its λ, w_s its β). L_next takes one sampled negative a position; the
encoder is SASRec's in the form of the S3-Rec lineage.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from datamodules.errors import RequestError
from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.card import Card, Published
from intentbench.models.intent import IntentRecommender, Intents
from intentbench.nn.grouping import encode_last
from intentbench.nn.kmeans import KMeans
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.transformer import SequenceEncoder
from intentbench.nn.views import (
    EncodedRows,
    UserWindows,
    bce_with_one_negative,
    crop_mask_reorder,
    encode_rows,
    encode_view,
    instance_contrast,
    intent_contrast,
    random_view,
)

_README = "ICLRec repository, README (the authors' checkpoints)"
_ISSUE = "ICLRec repository, issue 4 (first author)"
_NO_INSTANCE: Mapping[str, Any] = {"instance_weight": 0.0}

CARD = Card(
    title="ICLRec",
    paper="Chen et al., Intent Contrastive Learning for Sequential Recommendation, WWW 2022, "
    "arXiv:2202.02519",
    code="github.com/salesforce/ICLRec @ 2890e6c",
    tiny={
        "clusters": 4,
        "crop": 0.6,
        "mask": 0.4,
        "reorder": 0.8,
        "width": 32,
        "blocks": 1,
        "dropout": 0.1,
        "learning_rate": 1e-2,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0744, _README),
        Published("beauty", "ndcg@10", 0.0403, _README),
        Published("sports", "hit_rate@10", 0.0437, _README),
        Published("sports", "ndcg@10", 0.0238, _README),
        Published("toys", "hit_rate@10", 0.0834, _README),
        Published("toys", "ndcg@10", 0.0480, _README),
        Published("yelp", "hit_rate@10", 0.0409, _README),
        Published("yelp", "ndcg@10", 0.0207, _README),
        Published("ml-1m-sequences", "hit_rate@10", 0.2282, _ISSUE, _NO_INSTANCE),
        Published("ml-1m-sequences", "ndcg@10", 0.1205, _ISSUE, _NO_INSTANCE),
    ),
    deviations=(
        "windows are padded on the right and positions counted from the first item; the code pads "
        "on the left",
        "means and flattened states cover real positions only (flattened ones stand from the last "
        "item backwards), so that a trimmed batch equals a padded one; the code takes all N padded "
        "positions",
        "masked items vanish and the gap closes; the code leaves a hidden hole at their position",
        "edits are made on the window; the code edits the whole history and cuts it afterwards",
        "both contrasts use one encoding of the views; the code encodes them twice, under two "
        "dropout masks, which costs two more passes a step",
        "negatives of L_next are drawn outside the training events only: the code draws outside "
        "the whole sequence, which tells the model what is held out, and may draw its mask id",
        "K-means starts from k-means++ points, faiss from random ones; both take 20 rounds, the "
        "best of 5 first fits, and go on from the last epoch's centroids",
    ),
    expected_failures={
        "C6b": "the contrasts compare whole windows; the states and the loss of the next item are "
        "causal",
    },
)


class ICLRec(IntentRecommender):
    """Intents by K-means, learnt by contrast.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        clusters: K, the number of intents.
        instance_weight: w_s, of the contrast between views; 0 leaves it out.
        intent_weight: w_i, of the contrast with intents; 0 leaves it and the E-step out.
        temperature: τ of both contrasts.
        mask_same_intent: whether rows of one intent are no negatives of each other in the contrast
            with intents (the paper's false negative mitigation; off in the released scripts).
        crop: share of a row that cropping keeps.
        mask: share of a row that masking takes away.
        reorder: share of a row that reordering shuffles.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        clusters: int = 256,
        instance_weight: float = 0.1,
        intent_weight: float = 0.1,
        temperature: float = 1.0,
        mask_same_intent: bool = False,
        crop: float = 0.2,
        mask: float = 0.7,
        reorder: float = 0.2,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.instance_weight = instance_weight
        self.intent_weight = intent_weight
        self.temperature = temperature
        self.mask_same_intent = mask_same_intent
        self.edits = crop_mask_reorder(crop, mask, reorder)
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        self.kmeans = KMeans(clusters, width, restarts=5)
        self.sampler: UniformNegatives | None = None
        self.users: UserWindows | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has seen, and the windows that the E-step encodes.

        Raises:
            RequestError: intents have weight, and are more than the users to be clustered.
        """
        self.sampler = UniformNegatives(training).to(self.device)
        self.users = UserWindows(training, self.window).to(self.device)
        clusters = len(self.kmeans.centroids)
        if self.intent_weight and clusters > len(self.users):
            raise RequestError(
                f"iclrec: {clusters} clusters for {len(self.users)} users with a training target; "
                "set clusters to fewer"
            )

    def on_epoch(self) -> None:
        """E-step: cluster the users' mean states."""
        if self.intent_weight:
            if self.users is None:
                raise RuntimeError("ICLRec.prepare must see the training events before the E-step")
            self.kmeans.fit(self.users.means(self.encoder))

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""
        return encode_last(batch, self.encoder.last_state)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """M-step: the loss of the next item and, where they have weight, the two contrasts."""
        rows = encode_rows(batch.items, batch.lengths, batch.groups, self.encoder)
        states = rows.flat()[batch.select]
        total = bce_with_one_negative(states, self.item_table(), batch, self.sampler)
        terms = {"next": total}
        if self.instance_weight or self.intent_weight:
            first, second = self._view(batch), self._view(batch)
        if self.instance_weight:
            terms["instance"] = instance_contrast(first, second, self.temperature)
            total = total + self.instance_weight * terms["instance"]
        if self.intent_weight:
            prototypes, cluster = self._intents_of(rows.means().detach())
            same = cluster if self.mask_same_intent else None
            terms["intent"] = intent_contrast(first, second, prototypes, self.temperature, same)
            total = total + self.intent_weight * terms["intent"]
        return {"total": total, **terms}

    def _view(self, batch: SequenceBatch) -> EncodedRows:
        view = random_view(batch.items, batch.lengths, self.edits, self.window)
        return encode_view(view, batch.groups, self.encoder)

    def _intents_of(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Centroids (B, D) of length 1 and their numbers (B,), nearest before the scaling."""
        cluster = self.kmeans.assign(means)
        return normalize(self.kmeans.centroids, dim=1)[cluster], cluster

    def intents(self, batch: SequenceBatch) -> Intents:
        """Each prefix's mean state, which is what the E-step clusters, and its centroid."""
        rows = encode_rows(batch.items, batch.lengths, batch.groups, self.encoder)
        means = rows.running_means().flat()[batch.select]
        vectors, cluster = self._intents_of(means)
        return Intents(vectors, means, cluster)

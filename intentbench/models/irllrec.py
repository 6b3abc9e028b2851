"""IRLLRec: intents read from texts, aligned with intents read from interactions.

Wang et al., SIGIR 2025, around any method on the graph, whose inner products stay the scores:

    z = W₂ LeakyReLU(W₁ x + b₁) + b₂                      x: a node's frozen text (Eq. 7)
    q^(l) = softmax_K(E^(l) C) Cᵀ,  G^(l) = the edges that q^(l) explains   (Eq. 9-11)
    r = 1/L Σ_{l=0}^{L-1} G^(l) E^(l)                                         (Eq. 12)
    L_pair = NCE_τ(r_u, z_u; all users) + NCE_τ(r_i, z_i; batch)
             + NCE_τ(r_j, z_j; batch)                                         (Eq. 13)
    L_tran = noisy r and z of the batch's nodes, matched both ways        (Eq. 14, 15)
    L_ITM  = (1 - α) L_tran + α [KL(q^i2t ‖ p^i2t) + KL(q^t2i ‖ p^t2i)]       (Eq. 17)
    L_prf  = L_pair with e in place of r, profiles in place of z, τ_p in place of τ
    L      = L_base + λ_p L_prf + λ_1 L_pair + λ_2 L_tran + λ_3 L_ITM + λ_Θ Σ_W ‖W‖²

q is the teacher's, whose tensors follow the student's: θ' ← β θ' + (1 - β) θ (Eq. 18). L_prf is
RLMRec-Con's, which the public code trains beside IRLLRec's terms; the paper has λ_p = 0.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.types import SequenceBatch
from intentbench.models.card import Card
from intentbench.models.graph import Triples, Views
from intentbench.models.graph_text import (
    BaseArgument,
    OwnDraws,
    TextGraphRecommender,
    TextTower,
    align,
    published,
)
from intentbench.nn.graph_intents import Prototypes
from intentbench.nn.intent_tower import Operand, interaction_intents
from intentbench.nn.momentum import Momentum
from intentbench.nn.processes import gather_fields
from intentbench.nn.text_alignment import principal_components, project
from intentbench.nn.translation import LOWEST, Pair, matching_loss, perturb, translation_loss

CARD = Card(
    title="IRLLRec",
    paper="Wang et al., Intent Representation Learning with Large Language Model for "
    "Recommendation, SIGIR 2025, arXiv:2502.03307",
    code="https://github.com/wangyu0627/IRLLRec @ ee8330b",
    tiny={
        "base_arguments": {"width": 16, "layers": 2, "keep": 1.0},
        "text": "gaussian",
        "intent_width": 24,
        "profile_width": 20,
        "pair_weight": 0.05,
        "translation_weight": 0.01,
        "itm_weight": 0.05,
        "profile_weight": 0.01,
        "intents": 8,
        "learning_rate": 2e-2,
    },
    published=published(
        "IRLLRec",
        {
            "lightgcn": (0.1538, 0.0938, 0.1278, 0.0810, 0.1855, 0.1032),
            "sgl": (0.1539, 0.0964, 0.1275, 0.0805, 0.1857, 0.1035),
            "simgcl": (0.1575, 0.0970, 0.1328, 0.0844, 0.1863, 0.1082),
            "dccf": (0.1590, 0.0992, 0.1360, 0.0864, 0.1826, 0.1066),
            "bigcf": (0.1631, 0.1010, 0.1342, 0.0854, 0.1916, 0.1115),
        },
    ),
    deviations=(
        "texts: whatever the row's `text` names, of training pairs alone; the paper has summaries "
        "by GPT-4o-mini, embedded by text-embedding-3-large, of reviews that it does not name",
        "the public code trains RLMRec-Con and IRLLRec together: RLMRec's term (profile_weight) is "
        "in no equation of the paper and in all five released models; 0 unless it is asked for",
        "translation and matching: in the paper on every base, with weights it does not give (5e-4 "
        "and 1e-4 here); in the code on LightGCN alone, at 1e-7; 0 in the presets of the released "
        "form",
        "Eq. 11: the mask is normalised by its own row sums, as in the code; the adjacency's "
        "normalisation has no part in it",
        "Eq. 12: mask times layers, as in the code; operand='intents' is the equation as printed",
        "Eq. 12: layers 0..L-1 are averaged, as in the code; the paper's are 1..L, as are those of "
        "the code's BIGCF",
        "Eq. 13: users against all users, as in the code; items in the batch, where other rows of "
        "the same item are left out (the code keeps them: mask_same=false)",
        "Eq. 13: the term of negative items on SimGCL too; its code leaves it out",
        "Eq. 14-15: the batch's distinct users, and its distinct items, both ways, on cosines, at "
        "1/temperature for the scale that has no value; the code: final embeddings "
        "(translated='final'), users and items in one softmax, one way, at 1",
        "Eq. 15: the numerator is read row by row; as printed it sums the whole diagonal",
        "Eq. 14-17: the means over users and over items are added; items are positives and "
        "negatives",
        "Eq. 17: alpha weighs the divergences; they are of cosines at 1/temperature over distinct "
        "nodes, as in Eq. 14 (printed: plain products over the batch). In the code alpha weighs "
        "the translation, and the other term is a cross-entropy of single texts' coordinates with "
        "those of a teacher of the text tower alone",
        "Eq. 17: KL(teacher || student) both ways; the letters as printed swap them in one",
        "Eq. 18: the teacher begins as a copy, moves after the optimiser's step, and sees no noise "
        "and all edges; the code draws its weights anew, and moves it before the step",
        "Eq. 19: the base method's loss and a weight of the penalty are added; the penalty is on "
        "what is trained, in the code also on the frozen teacher",
        "SGL's r is of the pass with all edges, as on the other bases; the code's of another pass",
        "128 prototypes a side (the code's; the paper gives none); a base method's own if it has "
        "some",
        "w/o Graph (graph_intents=False): r is e; the paper puts user and item embeddings there, "
        "and does not say of which layer",
        "w/o Text (text_tower='pca'): principal components of the features; the paper has vectors "
        "of different widths aligned directly",
    ),
    personal=True,
    effects={
        "base": "which method it is added to",
        "base_arguments": "arguments of that method",
        "text": "which features are read",
    },
)


class IRLLRec(TextGraphRecommender):
    """IRLLRec. A term of weight 0 is left out, with the modules that nothing else needs.

    Args:
        n_items: V.
        n_users: N.
        base: key of the method on the graph.
        base_arguments: its constructor arguments; its `l2` is λ_Θ.
        text: source of the features.
        intent_width: columns of the intents' features.
        profile_width: columns of the profiles' features.
        pair_weight: λ_1.
        translation_weight: λ_2.
        itm_weight: λ_3; at 0 there is no teacher.
        profile_weight: λ_p.
        temperature: τ.
        profile_temperature: τ_p.
        intents: K of each side, where the base method has no prototypes of its own.
        operand: what the mask is multiplied with, the base method's "layers" or "intents" q.
        graph_intents: whether r comes from prototypes and mask; else it is e (w/o Graph).
        text_tower: of intents: "mlp", or "pca" of the features (w/o Text), which learns nothing.
        translated: into texts: "intents" r, or the "final" embedding e.
        perturbation: noise of the translation, relative to each coordinate; 1 in the paper.
        alpha: α.
        beta: β.
        mask_same: whether other rows of an item are no negatives of it in a batch.
        learning_rate: of Adam.

    Attributes:
        draws: random numbers of the noise.
        teacher: of the matching.

    Raises:
        RequestError: the base method has no layer to read intents from, the features are too
            narrow for "pca", or τ is too low for translation and matching.
    """

    CARD = CARD
    draws: OwnDraws
    teacher: Momentum

    def __init__(
        self,
        n_items: int,
        n_users: int,
        base: str = "lightgcn",
        base_arguments: Mapping[str, BaseArgument] | None = None,
        text: str = "tfidf-svd",
        intent_width: int = 256,
        profile_width: int = 128,
        pair_weight: float = 2e-2,
        translation_weight: float = 5e-4,
        itm_weight: float = 1e-4,
        profile_weight: float = 0.0,
        temperature: float = 0.2,
        profile_temperature: float = 0.2,
        intents: int = 128,
        operand: Operand = "layers",
        graph_intents: bool = True,
        text_tower: Literal["mlp", "pca"] = "mlp",
        translated: Literal["intents", "final"] = "intents",
        perturbation: float = 1.0,
        alpha: float = 0.4,
        beta: float = 0.999,
        mask_same: bool = True,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(
            n_items,
            n_users,
            base,
            base_arguments,
            text,
            intent_width,
            profile_width,
            learning_rate,
        )
        self.pair_weight = pair_weight
        self.translation_weight = translation_weight
        self.itm_weight = itm_weight
        self.profile_weight = profile_weight
        self.temperature = temperature
        self.profile_temperature = profile_temperature
        self.operand = operand
        self.graph_intents = graph_intents
        self.text_tower = text_tower
        self.translated = translated
        self.perturbation = perturbation
        self.alpha = alpha
        self.mask_same = mask_same
        self.matches = bool(translation_weight or itm_weight)
        self.aligns = bool(pair_weight) or self.matches
        self._check_arguments()
        self._build(intent_width, profile_width, intents)
        if itm_weight:
            self.teacher = Momentum(self._student(), beta)

    def _check_arguments(self) -> None:
        if self.aligns and self.graph_intents and getattr(self.base, "layers", 1) < 1:
            raise RequestError("base_arguments.layers: intents are read from layers; at least 1")
        if self.text_tower == "pca" and (self.intent_width or 0) < self.base.width:
            raise RequestError(
                f"intent_width: {self.intent_width} columns have no {self.base.width} principal "
                "components; take wider features or text_tower 'mlp'"
            )
        if self.matches and self.temperature < LOWEST:
            raise RequestError(
                f"temperature: {self.temperature} is too low for translation and matching; at "
                f"least {LOWEST}"
            )

    def _build(self, intent_width: int, profile_width: int, intents: int) -> None:
        width = self.base.width
        if self.profile_weight:
            with torch.random.fork_rng(devices=()):
                self.profile_tower = TextTower(profile_width, width)
        if self.matches:
            self.draws = OwnDraws()
        if not self.aligns:
            return
        learned = self.text_tower == "mlp"
        with torch.random.fork_rng(devices=()):
            # no module's weights hang on a switch, nor does what a base method draws on a device
            seeds = torch.randint(2**62, (2,)).tolist()
            torch.default_generator.manual_seed(seeds[0])
            self.tower = TextTower(intent_width, width) if learned else nn.Identity()
            torch.default_generator.manual_seed(seeds[1])
            if self.graph_intents and self._base_prototypes() is None:
                self.prototypes = Prototypes(width, intents)

    def _base_prototypes(self) -> Prototypes | None:
        found = getattr(self.base, "prototypes", None)
        return found if isinstance(found, Prototypes) else None

    def _student(self) -> dict[str, Tensor]:
        """What r and z are made of, which the teacher follows."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith("profile_tower.")
        }

    def take(self, dataset: PreparedDataset) -> None:
        """Look up the features; those of intents are projected here where nothing is learned.

        Raises:
            RequestError: there are none, or of another width.
        """
        super().take(dataset)
        if self.text_tower == "pca":
            self.intent_text = principal_components(self.intent_text, self.base.width)

    def interaction_intents(self, views: Views) -> Tensor:
        """The graph's side, r (n, D)."""
        if not self.graph_intents:
            return views.final
        if self.operand == "layers" and hasattr(views, "intents"):
            made: Tensor = views.intents  # DCCF needs the same ones itself
            return made
        prototypes = self._base_prototypes() or self.prototypes
        graph = self.base.known_graph()
        return interaction_intents(graph, views.layers[:-1], prototypes, self.operand)

    def forward(self, nodes: Tensor) -> Pair:
        """Both towers, r and z (k, D) of nodes (k,), of a pass without noise and with all edges."""
        training, self.base.training = self.base.training, False  # only `views` reads it
        views = self.base.views(self.nodes())
        self.base.training = training
        return self.interaction_intents(views)[nodes], self.tower(self.intent_text[nodes])

    def own_terms(self, views: Views, triples: Triples) -> dict[str, Tensor]:
        """The terms "profile", "pair", "translation" and "itm", weighted."""
        terms, triples = {}, gather_fields(triples)
        items = torch.unique(torch.cat([triples.positives, triples.negatives]))
        everyone = torch.arange(self.n_users, device=items.device)
        if self.profile_weight:
            texts = project(self.profile_tower, self.profile_text, torch.cat([everyone, items]))
            profile = self._align(views.final, texts, triples, self.profile_temperature)
            terms["profile"] = self.profile_weight * profile
        if not self.aligns:
            return terms
        users = torch.unique(triples.users)
        wanted = everyone if self.pair_weight else users
        texts = project(self.tower, self.intent_text, torch.cat([wanted, items]))
        intents = self.interaction_intents(views)
        if self.pair_weight:
            pair = self._align(intents, texts, triples, self.temperature)
            terms["pair"] = self.pair_weight * pair
        if self.matches:
            moved = intents if self.translated == "intents" else views.final
            translation = self._translation(moved, texts, (users, items))
            if self.translation_weight:
                terms["translation"] = self.translation_weight * translation
            if self.itm_weight:
                matching = self._matching(intents, texts, (users, items))
                itm = (1 - self.alpha) * translation + self.alpha * matching
                terms["itm"] = self.itm_weight * itm
        return terms

    def _align(self, vectors: Tensor, texts: Tensor, triples: Triples, tau: float) -> Tensor:
        return align(vectors, texts, triples, self.n_users, tau, self.mask_same)

    def _translation(self, vectors: Tensor, texts: Tensor, sides: Pair) -> Tensor:
        """L_tran, summed over users and items."""
        generator, terms = self.draws.generator(), []
        for nodes in sides:
            noisy = (
                perturb(vectors.index_select(0, nodes), self.perturbation, generator),
                perturb(texts.index_select(0, nodes), self.perturbation, generator),
            )
            terms.append(translation_loss(noisy, self.temperature))
        return torch.stack(terms).sum()

    def _matching(self, intents: Tensor, texts: Tensor, sides: Pair) -> Tensor:
        """L_KL, summed over users and items."""
        with torch.no_grad():
            taught = functional_call(self, self.teacher.tensors(), (torch.cat(sides),))
        cut = [len(nodes) for nodes in sides]
        known = zip(*(rows.split(cut) for rows in taught), strict=True)
        terms = [
            matching_loss(
                (intents.index_select(0, nodes), texts.index_select(0, nodes)),
                teacher,
                self.temperature,
            )
            for nodes, teacher in zip(sides, known, strict=True)
        ]
        return torch.stack(terms).sum()

    def on_train_batch_end(self, outputs: Any, batch: SequenceBatch, batch_idx: int) -> None:
        """The teacher follows, after the optimiser's step."""
        if self.itm_weight:
            self.teacher.update(self._student())

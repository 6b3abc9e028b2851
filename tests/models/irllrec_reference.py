"""The loss of IRLLRec's released form on 20 nodes, by dense matrices and loops over pairs.

Random draws are those of the methods, made again in the same order from the same seed.
"""

from typing import Any

import torch
from torch import Tensor

from datamodules.types import TrainingData
from intentbench.models.graph import Triples
from intentbench.models.irllrec import IRLLRec

N_USERS, N_ITEMS, WIDTH = 8, 12, 6
N = N_USERS + N_ITEMS
PAIRS = [(u, v) for u in range(N_USERS) for v in range(1, N_ITEMS + 1) if (3 * u + 5 * v) % 7 < 2]

BASES: dict[str, dict[str, Any]] = {
    "lightgcn": {"keep": 1.0},
    "sgl": {"keep": 0.6, "contrast_weight": 0.3},
    "simgcl": {"epsilon": 0.4, "contrast_weight": 0.3},
    "dccf": {"prototypes": 5, "contrast_weight": 0.3},
    "bigcf": {"prototypes": 5, "contrast_weight": 0.3, "prototype_l2": 0.01},
}


def training() -> TrainingData:
    """The pairs."""
    counts = torch.bincount(torch.tensor([user for user, _ in PAIRS]), minlength=N_USERS)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return TrainingData(torch.tensor([item for _, item in PAIRS]), offsets, N_ITEMS)


def triples() -> Triples:
    """All pairs, with negatives that repeat."""
    users = torch.tensor([user for user, _ in PAIRS])
    items = torch.tensor([item for _, item in PAIRS])
    return Triples(users, N_USERS - 1 + items, N_USERS + (users * items + items) % N_ITEMS)


def build_model(base: str = "lightgcn", **changes: Any) -> IRLLRec:
    """In double precision, shown pairs and texts; its training draws are seeded."""
    torch.manual_seed(0)
    arguments = {"width": WIDTH, "layers": 2, "l2": 1e-3, **BASES[base]}
    arguments |= changes.pop("base_arguments", {})
    settings: dict[str, Any] = {"intent_width": 9, "profile_width": 7, "intents": 5}
    settings |= {"text": "gaussian", "profile_weight": 0.1, "pair_weight": 0.2, **changes}
    model = IRLLRec(N_ITEMS, N_USERS, base, arguments, **settings).double()
    with torch.no_grad():  # long enough that vectors differ by more than their noise
        model.base.users.mul_(3)
        model.base.items.mul_(3)
    if settings.get("itm_weight", 1):
        model.teacher.update(model._student())
    model.intent_text = torch.randn(N, 9, dtype=torch.float64)
    model.profile_text = torch.randn(N, 7, dtype=torch.float64)
    model.prepare(training())
    return model


def nce(anchor: Tensor, positive: Tensor, candidates: list[Tensor], tau: float) -> Tensor:
    """InfoNCE of one anchor; the positive is among the candidates."""
    mass = torch.stack([(cosine(anchor, other) / tau).exp() for other in candidates]).sum()
    return mass.log() - cosine(anchor, positive) / tau


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """With 1e-8 under both roots."""
    return a @ b / ((a @ a + 1e-8).sqrt() * (b @ b + 1e-8).sqrt())


def mean_nce(first: Tensor, second: Tensor, drawn: Tensor, among: list[int], tau: float) -> Tensor:
    """Of drawn rows of the first, against these rows of the second."""
    candidates = [second[n] for n in among]
    return torch.stack([nce(first[n], second[n], candidates, tau) for n in drawn]).mean()


def alignment(vectors: Tensor, texts: Tensor, tau: float) -> Tensor:
    """Users, positives and negatives; other rows of the same item are no candidates."""
    drawn, terms = triples(), []
    terms.append(mean_nce(vectors, texts, drawn.users, [*range(N_USERS)], tau))
    for nodes in (drawn.positives, drawn.negatives):
        rows = []
        for n in nodes:
            others = [texts[m] for m in nodes if m != n]
            rows.append(nce(vectors[n], texts[n], [texts[n], *others], tau))
        terms.append(torch.stack(rows).mean())
    return torch.stack(terms).sum()


def adjacency() -> Tensor:
    """Both directions of all pairs, (n, n)."""
    joined = torch.zeros(N, N, dtype=torch.float64)
    for user, item in PAIRS:
        joined[user, N_USERS + item - 1] = joined[N_USERS + item - 1, user] = 1
    return joined


def normalised() -> Tensor:
    """D^-1/2 A D^-1/2."""
    degree = adjacency().sum(1)
    return adjacency() / (degree[:, None] * degree).sqrt()


def propagate(matrix: Tensor, nodes: Tensor) -> list[Tensor]:
    """Two layers on a graph."""
    return [nodes, matrix @ nodes, matrix @ (matrix @ nodes)]


def mask(vectors: Tensor) -> Tensor:
    """Row-stochastic, by how alike the ends of an edge are."""
    alike = torch.stack([torch.stack([cosine(a, b) for b in vectors]) for a in vectors])
    weight = adjacency() * (alike + 1) / 2
    return weight / weight.sum(1, keepdim=True)


def assigned(vectors: Tensor, prototypes: Any) -> Tensor:
    """The mixture of prototypes of each node."""
    sides = (vectors[:N_USERS], prototypes.users), (vectors[N_USERS:], prototypes.items)
    return torch.cat([(rows @ columns).softmax(1) @ columns.T for rows, columns in sides])


def released_terms(model: IRLLRec) -> dict[str, Tensor]:
    """All terms of the loss, from the random numbers that come next."""
    base, drawn = model.base, triples()
    final, layers, own = globals()[f"_{type(base).__name__.lower()}"](base, base.nodes())
    difference = final[drawn.negatives] - final[drawn.positives]
    terms = {"bpr": (1 + (final[drawn.users] * difference).sum(1).exp()).log().mean(), **own}
    texts = [model.profile_tower(model.profile_text), model.tower(model.intent_text)]
    prototypes = getattr(base, "prototypes", None) or model.prototypes
    moved = torch.stack([mask(assigned(layer, prototypes)) @ layer for layer in layers[:2]])
    profile = alignment(final, texts[0], model.profile_temperature)
    terms["profile"] = model.profile_weight * profile
    terms["pair"] = model.pair_weight * alignment(moved.mean(0), texts[1], model.temperature)
    terms["l2"] = base.l2 * torch.stack([p.square().sum() for p in model.parameters()]).sum()
    return terms


Pass = tuple[Tensor, list[Tensor], dict[str, Tensor]]


def _lightgcn(base: Any, nodes: Tensor) -> Pass:
    layers = propagate(normalised(), nodes)
    return layers[0] + layers[1] + layers[2], layers, {}


def _views_contrast(base: Any, views: list[Tensor], drawn: list[Tensor]) -> dict[str, Tensor]:
    terms = []
    for nodes in drawn:
        side = range(N_USERS) if int(nodes[0]) < N_USERS else range(N_USERS, N)
        terms.append(mean_nce(views[0], views[1], nodes, [*side], base.temperature))
    return {"contrast": base.contrast_weight * torch.stack(terms).sum()}


def _sgl(base: Any, nodes: Tensor) -> Pass:
    final, layers, _ = _lightgcn(base, nodes)
    views = []
    for _ in range(2):
        kept = torch.zeros(N, N, dtype=torch.float64)
        for edge, stays in enumerate(torch.rand(2 * len(PAIRS)) < base.keep):
            kept[base.graph.receiver[edge], base.graph.sender[edge]] = float(stays)
        views.append(torch.stack(propagate(normalised() * kept, nodes)).sum(0))
    drawn = triples()
    own = _views_contrast(base, views, [drawn.users, drawn.positives, drawn.negatives])
    return final, layers, own


def _simgcl(base: Any, nodes: Tensor) -> Pass:
    final, layers, _ = _lightgcn(base, nodes)
    views = []
    for _ in range(2):
        noisy = [nodes]
        for _ in range(2):
            moved, noise = normalised() @ noisy[-1], torch.rand(N, WIDTH, dtype=torch.float64)
            step = noise / noise.square().sum(1, keepdim=True).sqrt()
            noisy.append(moved + base.epsilon * moved.detach().sign() * step)
        views.append(torch.stack(noisy).sum(0))
    return final, layers, _views_contrast(base, views, [triples().users, triples().positives])


def _dccf(base: Any, nodes: Tensor) -> Pass:
    layers, terms = [nodes], []
    sides = [sorted({*map(int, side)}) for side in (triples().users, triples().positives)]
    for _ in range(2):
        last = layers[-1]
        moved, intents = normalised() @ last, assigned(last, base.prototypes)
        parts = [intents, mask(moved) @ last, mask(intents) @ last]
        terms += [
            mean_nce(moved, part, torch.tensor(side), side, base.temperature)
            for part in parts
            for side in sides
        ]
        layers.append(moved + torch.stack(parts).sum(0) + last)
    own = {"contrast": base.contrast_weight * torch.stack(terms).sum()}
    return torch.stack(layers).sum(0), layers, own


def _bigcf(base: Any, nodes: Tensor) -> Pass:
    mean, layers, _ = _lightgcn(base, nodes)
    spread = assigned(mean, base.prototypes)
    final = mean + spread * torch.randn(N, WIDTH, dtype=torch.float64)
    users, items = triples().users, triples().positives
    terms = []
    for first, second in (
        (final[users], final[users]),
        (final[items], final[items]),
        (final[users], final[items]),
        (spread[users], spread[users]),
        (spread[items], spread[items]),
    ):
        rows = [nce(a, b, [*second], base.temperature) for a, b in zip(first, second, strict=True)]
        terms.append(torch.stack(rows).mean())
    centres = base.prototypes.users.square().sum() + base.prototypes.items.square().sum()
    own = {
        "contrast": base.contrast_weight * torch.stack(terms).sum(),
        "prototype_l2": base.prototype_l2 * centres,
    }
    return final, layers, own

"""What pulls texts and embeddings together, against whole batches, scikit-learn, closed forms."""

from math import exp, log

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from intentbench.models.graph import Triples
from intentbench.models.graph_text import align
from intentbench.nn.node_contrast import nce_in_batch
from intentbench.nn.text_alignment import nce_of_batch, principal_components, project

NODES = torch.tensor([3, 1, 3, 7, 3, 1, 5])


def _tables() -> tuple[Tensor, Tensor]:
    vectors = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)
    return vectors, torch.randn(8, 6, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("mask_same", [True, False])
@pytest.mark.parametrize("cells", [1, 8, 1_000_000])  # a chunk has 1, 2 or all rows
def test_nodes_counted_once_give_what_all_rows_give(
    mask_same: bool, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentbench.nn.node_contrast.CHUNK_CELLS", {"cpu": cells})
    vectors, table = _tables()
    found = nce_of_batch(vectors, table, NODES, 0.2, mask_same)
    known = NODES if mask_same else None
    expected = nce_in_batch(vectors[NODES], table[NODES], 0.2, known)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(3 * loss, (vectors, table)) for loss in (found, expected))
    torch.testing.assert_close(*gradients)


def test_one_item_in_all_places_has_no_negatives() -> None:
    vectors, table = _tables()
    nodes = torch.full((9,), 4)
    assert nce_of_batch(vectors, table, nodes, 0.2) == 0
    kept = nce_of_batch(vectors, table, nodes, 0.2, mask_same=False)
    assert kept.item() == pytest.approx(log(9))


def _alignment(vectors: Tensor, texts: Tensor, temperature: float = 0.2) -> float:
    """Of three users and, in a batch each once, three positives and three negatives."""
    triples = Triples(torch.arange(3), torch.arange(3, 6), torch.arange(6, 9))
    return align(vectors, texts, triples, 3, temperature).item()


def test_alignment_in_closed_form() -> None:
    rows = torch.eye(9, dtype=torch.float64)
    expected = 3 * log(1 + 2 * exp(-1 / 0.2))
    assert _alignment(rows, rows) == pytest.approx(expected, abs=1e-7)
    same = torch.ones(9, 9, dtype=torch.float64)
    assert _alignment(rows, same) == pytest.approx(3 * log(3), abs=1e-7)


def test_lengths_do_not_matter() -> None:
    rows = torch.randn(2, 9, 5)
    lengths = torch.linspace(0.3, 20, 18).view(2, 9, 1)
    found, expected = _alignment(*(rows * lengths)), _alignment(*rows)
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_closer_text_lowers_the_loss_by_what_its_share_says() -> None:
    """With s the similarity of one pair alone, the derivative is (p - 1)/τ, here of a mean of 4."""
    vectors = torch.eye(4, dtype=torch.float64)
    for similarity in (-0.9, 0.0, 0.9):
        turn = torch.tensor(similarity, dtype=torch.float64, requires_grad=True)
        # the fifth coordinate is nobody else's: only the first pair's similarity changes
        first = torch.cat([turn[None], turn.new_zeros(3), (1 - turn.square()).sqrt()[None]])
        texts = torch.stack([first, *torch.eye(5, dtype=torch.float64)[1:4]])
        anchors = torch.cat([vectors, vectors.new_zeros(4, 1)], 1)
        loss = nce_of_batch(anchors, texts, torch.arange(4), 0.2)
        (slope,) = torch.autograd.grad(loss, turn)
        share = exp(similarity / 0.2) / (exp(similarity / 0.2) + 3)
        assert slope.item() == pytest.approx((share - 1) / 0.2 / 4, abs=1e-6)
        assert slope < 0


def test_loss_is_least_where_texts_are_aligned() -> None:
    rows, begin = torch.eye(9, dtype=torch.float64), torch.randn(9, 9, dtype=torch.float64)
    losses = [_alignment(rows, (1 - t) * begin + t * rows) for t in (0, 0.25, 0.5, 0.75, 1)]
    assert losses[-1] == min(losses)


def test_projection_is_the_towers_at_the_nodes_asked_for() -> None:
    tower, texts = nn.Linear(4, 3), torch.randn(8, 4)
    found = project(tower, texts, NODES)
    asked = torch.zeros(8, 1, dtype=torch.bool).index_fill(0, NODES, True)
    torch.testing.assert_close(found, torch.where(asked, tower(texts), 0))
    found.sum().backward()  # type: ignore[no-untyped-call]  # in torch
    assert tower.bias.grad is not None
    assert tower.bias.grad.tolist() == [4.0] * 3, "each node once"


def test_principal_components_hold_most_of_the_variance() -> None:
    texts = torch.randn(50, 10) * torch.linspace(5, 0.1, 10) + 3
    found = principal_components(texts, 4)
    expected = PCA(4, svd_solver="full").fit_transform(texts.double().numpy())
    torch.testing.assert_close(
        found.abs(), torch.from_numpy(expected).float().abs(), atol=1e-4, rtol=0
    )
    assert found.equal(principal_components(texts, 4))

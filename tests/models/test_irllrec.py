"""IRLLRec: what its specification says must hold, one batch at a time."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from datamodules.errors import RequestError
from intentbench.models.irllrec import IRLLRec
from intentbench.models.rlmrec_con import RLMRecCon
from intentbench.nn.intent_tower import interaction_intents
from intentbench.nn.translation import matching_loss, translation_loss
from tests.models.irllrec_reference import (
    BASES,
    N_ITEMS,
    N_USERS,
    N,
    build_model,
    released_terms,
    training,
    triples,
)

RELEASED: dict[str, Any] = {"translation_weight": 0.0, "itm_weight": 0.0}
NOTHING: dict[str, Any] = {**RELEASED, "pair_weight": 0.0, "profile_weight": 0.0}
ALL: dict[str, Any] = {"translation_weight": 0.1, "itm_weight": 0.3, "beta": 0.5}


def _terms(model: IRLLRec, seed: int = 1) -> dict[str, Tensor]:
    """The loss of the reference's batch."""
    model.base.triples = lambda batch: triples()  # type: ignore[method-assign]  # no drawn ones
    torch.manual_seed(seed)
    return model.loss(cast("Any", None))


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]  # in torch


@pytest.mark.parametrize("base", BASES)
def test_released_form_equals_the_dense_recomputation(base: str) -> None:
    model = build_model(base, **RELEASED)
    found = _terms(model)
    torch.manual_seed(1)
    expected = released_terms(model)
    expected["total"] = torch.stack([*expected.values()]).sum()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)
    parameters = [*model.parameters()]
    gradients = [
        torch.autograd.grad(terms["total"], parameters, materialize_grads=True)
        for terms in (found, expected)
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_interaction_intents_of_dccf_are_those_that_it_makes_itself() -> None:
    base = build_model("dccf").base
    views = base.views(base.nodes())
    prototypes: Any = base.prototypes
    made = interaction_intents(base.known_graph(), views.layers[:-1], prototypes, "layers")
    torch.testing.assert_close(made, views.intents)


@pytest.mark.parametrize("base", BASES)
def test_prototypes_are_the_base_methods_where_it_has_some(base: str) -> None:
    names = {name for name, _ in build_model(base).named_parameters()}
    shared = base in ("dccf", "bigcf")
    assert ("base.prototypes.users" in names) == shared
    assert ("prototypes.users" in names) != shared


@pytest.mark.parametrize("base", BASES)
def test_pairwise_gradients_reach_embeddings_prototypes_and_tower_alone(base: str) -> None:
    model = build_model(base, **{**RELEASED, "profile_weight": 0.0})
    _backward(_terms(model)["pair"])
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == dict(model.named_parameters()).keys()
    assert model.intent_text.grad is None
    assert not model.intent_text.requires_grad


@pytest.mark.parametrize("base", BASES)
def test_mixed_precision_changes_no_term_by_much(base: str) -> None:
    """What moves along the graph, and what it is compared with, stays in full precision."""
    model = build_model(base, **{**ALL, "profile_weight": 0.1}).float()
    begin = model.draws.get_extra_state()
    expected = _terms(model)
    model.draws.set_extra_state(begin)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _terms(model)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32, name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_translation_of_a_batch_with_all_nodes_is_that_of_whole_sides() -> None:
    model = build_model(**{**ALL, "perturbation": 0.0, "itm_weight": 0.0})
    drawn = triples()
    assert len(torch.unique(drawn.users)) == N_USERS
    assert len(torch.unique(torch.cat([drawn.positives, drawn.negatives]))) == N_ITEMS
    found = _terms(model)["translation"]
    intents, texts = model(torch.arange(N))
    sides = [
        translation_loss((intents[side], texts[side]), model.temperature)
        for side in (slice(0, N_USERS), slice(N_USERS, N))
    ]
    torch.testing.assert_close(found, 0.1 * torch.stack(sides).sum())


@pytest.mark.parametrize("base", BASES)
def test_matching_is_against_both_towers_of_the_teacher(base: str) -> None:
    model = build_model(base, **{**ALL, "alpha": 1.0, "beta": 0.5})
    student = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = _terms(model)["itm"]
    model.base.training = False
    intents, texts = model(torch.arange(N))
    model.load_state_dict(model.teacher.tensors(), strict=False)
    teacher = model(torch.arange(N))
    sides = [slice(0, N_USERS), slice(N_USERS, N)]
    expected = [
        matching_loss((intents[s], texts[s]), (teacher[0][s], teacher[1][s]), model.temperature)
        for s in sides
    ]
    torch.testing.assert_close(found, 0.3 * torch.stack(expected).sum())
    model.load_state_dict(student, strict=False)


def test_teacher_is_saved_but_neither_trained_nor_penalised() -> None:
    with_teacher, without = build_model(**ALL), build_model(**{**ALL, "itm_weight": 0.0})
    assert any(name.startswith("teacher.") for name in with_teacher.state_dict())
    assert not any(name.startswith("teacher.") for name, _ in with_teacher.named_parameters())
    optimiser = with_teacher.configure_optimizers()
    assert len(optimiser.param_groups[0]["params"]) == len([*without.parameters()])
    terms = _terms(with_teacher)
    assert terms["l2"] == _terms(without)["l2"]
    _backward(terms["total"])
    assert all(tensor.grad is None for tensor in with_teacher.teacher.tensors().values())


def test_teacher_has_all_that_the_towers_are_made_of() -> None:
    own = {"base.users", "base.items", "prototypes.users", "prototypes.items"}
    tower = {f"tower.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert build_model(**ALL).teacher.tensors().keys() == own | tower
    shared = build_model("dccf", **ALL).teacher.tensors().keys()
    assert shared == {name.replace("prototypes", "base.prototypes") for name in own} | tower


def test_teacher_begins_as_the_student() -> None:
    torch.manual_seed(0)
    model = IRLLRec(N_ITEMS, N_USERS, text="gaussian", intent_width=9, profile_width=7)
    parameters = dict(model.named_parameters())
    assert all(own.equal(parameters[name]) for name, own in model.teacher.tensors().items())


@pytest.mark.parametrize("base", BASES)
def test_switching_terms_shifts_no_draw_of_the_base_method(base: str) -> None:
    states, kept = [], []
    for switch in ({}, {"itm_weight": 0.0}, RELEASED, NOTHING, {"perturbation": 0.5}):
        model = build_model(base, **{**ALL, **switch})
        terms = _terms(model)
        states.append(torch.get_rng_state())
        begun = dict(model.base.state_dict())
        kept.append(begun | {name: terms[name] for name in ("bpr", "contrast") if name in terms})
    assert all(other.equal(states[0]) for other in states)
    for other in kept[1:]:
        assert all(value.equal(other[name]) for name, value in kept[0].items())


def test_weights_of_a_module_hang_on_no_switch() -> None:
    full = build_model(**ALL).state_dict()
    for switch in (RELEASED, {"profile_weight": 0.0}, {"graph_intents": False}):
        for name, value in build_model(**{**ALL, **switch}).named_parameters():
            assert value.equal(full[name]), (switch, name)


def test_noise_is_drawn_anew_each_step_and_resumes() -> None:
    model = build_model(**ALL)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = _terms(model)["translation"], _terms(model)["translation"]
    assert first != second
    model.load_state_dict(state)
    assert _terms(model)["translation"] == first


SWITCHES: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    # what is switched: arguments, terms that go, terms that change
    "alignment": ({"pair_weight": 0.0, "translation_weight": 0.0}, {"pair", "translation"}, set()),
    "matching": ({"itm_weight": 0.0}, {"itm"}, set()),
    "profile": ({"profile_weight": 0.0}, {"profile"}, set()),
    "graph": ({"graph_intents": False}, set(), {"pair", "translation", "itm"}),
    "text": ({"text_tower": "pca"}, set(), {"pair", "translation", "itm"}),
    "operand": ({"operand": "intents"}, set(), {"pair", "translation", "itm"}),
    "translated": ({"translated": "final"}, set(), {"translation", "itm"}),
    "duplicates": ({"mask_same": False}, set(), {"pair", "profile"}),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_changes_exactly_the_terms_that_it_names(name: str) -> None:
    switch, gone, changed = SWITCHES[name]
    full, model = build_model(**ALL), build_model(**{**ALL, **switch})
    if name == "text":
        model.intent_text = model.intent_text[:, : model.base.width]
    before, after = _terms(full), _terms(model)
    assert before.keys() - after.keys() == gone
    assert not after.keys() - before.keys()
    for term in after.keys() - {"total", "l2"}:  # fewer modules have less to penalise
        assert before[term].equal(after[term]) == (term not in changed), term


def test_modules_of_what_is_switched_off_are_not_built() -> None:
    def modules(**switch: Any) -> set[str]:
        return {name for name, _ in build_model(**{**ALL, **switch}).named_children()}

    full = modules()
    assert {"teacher", "draws", "tower", "profile_tower", "prototypes"} <= full
    assert full - modules(itm_weight=0.0) == {"teacher"}
    assert full - modules(**RELEASED) == {"teacher", "draws"}
    assert full - modules(graph_intents=False) == {"prototypes"}
    own = {"teacher", "draws", "tower", "profile_tower", "prototypes"}
    assert full - modules(**NOTHING) == own
    names = {name for name, _ in build_model(text_tower="pca").named_parameters()}
    assert not any(name.startswith("tower.") for name in names)


def test_profile_alignment_alone_is_rlmrec_con() -> None:
    model = build_model(**{**NOTHING, "profile_weight": 0.1, "profile_temperature": 0.3})
    torch.manual_seed(0)
    arguments = {"width": model.base.width, "layers": 2, "l2": 1e-3, "keep": 1.0}
    settings: dict[str, Any] = {"weight": 0.1, "temperature": 0.3, "profile_width": 7}
    other = RLMRecCon(N_ITEMS, N_USERS, "lightgcn", arguments, **settings).double()
    for name, value in other.tower.named_parameters():
        assert model.profile_tower.get_parameter(name).equal(value)
    other.load_state_dict(
        {n.replace("profile_tower", "tower"): v for n, v in model.state_dict().items()}
    )
    other.profile_text = model.profile_text
    other.prepare(training())
    other.base.triples = lambda batch: triples()  # type: ignore[method-assign]  # no drawn ones
    torch.testing.assert_close(_terms(model), other.loss(cast("Any", None)))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"base_arguments": {"layers": 0}}, "layers"),
        ({"text_tower": "pca", "base_arguments": {"width": 10}}, "intent_width"),
        ({"temperature": 0.01}, "temperature"),
        ({"base_arguments": {"no_such": 1}}, "no_such"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: dict[str, Any], word: str
) -> None:
    with pytest.raises(RequestError, match=word):
        build_model(**arguments)

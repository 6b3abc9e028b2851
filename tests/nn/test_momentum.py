import numpy as np
import pytest
import torch
from torch import nn

from intentbench.nn.momentum import Momentum


def _student() -> dict[str, nn.Parameter]:
    return {"base.users": nn.Parameter(torch.randn(4, 3)), "tower": nn.Parameter(torch.randn(2))}


def test_teacher_begins_as_the_student_bit_for_bit_and_apart_from_it() -> None:
    student = _student()
    teacher = Momentum(student, 0.9)
    for name, own in teacher.tensors().items():
        assert own.equal(student[name])
        assert own.data_ptr() != student[name].data_ptr()
    assert [*teacher.tensors()] == [*student]


def test_constant_student_is_approached_geometrically() -> None:
    begin, student = _student(), _student()
    teacher = Momentum(begin, 0.9)
    for _ in range(7):
        teacher.update(student)
    for name, own in teacher.tensors().items():
        expected = student[name] + 0.9**7 * (begin[name] - student[name])
        torch.testing.assert_close(own, expected.detach(), atol=1e-6, rtol=0)


def test_moving_student_is_followed_by_the_recursion() -> None:
    students = [_student() for _ in range(6)]
    teacher = Momentum(students[0], 0.7)
    expected = {name: value.detach().numpy().copy() for name, value in students[0].items()}
    for student in students[1:]:
        teacher.update(student)
        for name, value in student.items():
            expected[name] = 0.7 * expected[name] + 0.3 * value.detach().numpy()
    for name, own in teacher.tensors().items():
        np.testing.assert_allclose(own.numpy(), expected[name], atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_ends_of_beta(beta: float) -> None:
    begin, student = _student(), _student()
    teacher = Momentum(begin, beta)
    teacher.update(student)
    for name, own in teacher.tensors().items():
        assert own.equal((begin if beta else student)[name])


def test_tensors_are_saved_but_not_trained() -> None:
    teacher = Momentum(_student(), 0.9)
    assert not list(teacher.parameters())
    assert len(teacher.state_dict()) == 2
    other = Momentum(_student(), 0.9)
    other.load_state_dict(teacher.state_dict())
    for name, own in other.tensors().items():
        assert own.equal(teacher.tensors()[name])
        assert not own.requires_grad

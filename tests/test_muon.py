"""Nano's optimizer of matrices, against torch's own, which computes in bfloat16."""

import pytest

torch = pytest.importorskip("torch")

from recall.nano.muon import Muon, orthogonalised  # noqa: E402

SHAPES = ((8, 16), (16, 8), (8, 16), (8, 8))


def test_a_step_is_that_of_torch_but_for_rounding() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    optimizers = Muon(ours, lr=0.02), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.0)
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(2, 8, 16), (1, 16, 8)])
def test_the_singular_values_of_a_step_are_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert 0.3 < float(values.min()) <= float(values.max()) < 1.3


def test_a_matrix_without_a_gradient_stays() -> None:
    still, moved = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moved.grad = torch.eye(4)
    Muon([still, moved], lr=0.1).step()
    assert bool((still == 1).all())
    assert not bool((moved == 1).all())


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)

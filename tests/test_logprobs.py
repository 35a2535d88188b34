"""Log-probabilities and entropies equal those of torch's own operations, and so do their gradients."""

import pytest

torch = pytest.importorskip("torch")

from recall.policy.torch.logprobs import token_logprobs  # noqa: E402


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, -0.3)])
def test_gradients_are_those_of_the_composed_operations(weights: tuple[float, float]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(600, 11, dtype=torch.float64, requires_grad=True)
    # Some rows have several targets, some twice the same, some none.
    rows, targets = torch.randint(0, 600, (900,)), torch.randint(0, 3, (900,))
    per_row = torch.randn(2, 900, dtype=torch.float64)
    normal = logits.log_softmax(-1)[rows]
    composed = normal.gather(-1, targets[:, None])[:, 0], -(normal.exp() * normal).sum(-1)
    grads = []
    for logprobs, entropy in (composed, token_logprobs(logits, rows, targets)):
        # A part of weight 0 is left out, so that its gradient is None.
        parts = [
            weight * (row * value).sum()
            for weight, row, value in zip(weights, per_row, (logprobs, entropy), strict=True)
            if weight
        ]
        grads.append(torch.autograd.grad(sum(parts), logits)[0])
        torch.testing.assert_close((logprobs, entropy), composed)
    torch.testing.assert_close(grads[0], grads[1])


def test_a_token_of_probability_zero_adds_nothing_to_the_entropy() -> None:
    _, entropy = token_logprobs(torch.tensor([[0.0, 0.0, float("-inf")]]), torch.tensor([0]), torch.tensor([0]))
    assert entropy.item() == pytest.approx(0.6931472)

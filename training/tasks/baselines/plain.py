"""Reference predictors, to which errors are compared. Each sees what the model sees, per prompt."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from training.common.progress import progress_bar
from training.tasks.baselines.prefixes import before, count_before, distances_before, moments
from training.tasks.prompts import Prompts

MATCH = 1e-6  # two x are the same if no farther apart

RIDGE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


def least_squares(prompts: Prompts) -> Float[Tensor, "batch point"]:
    """y_k+1 from the minimum-norm least-squares fit of y = w·x to the k pairs before it."""
    xs, ys = prompts.xs.double(), prompts.ys.double()
    predictions = torch.zeros_like(ys)
    for k in range(1, ys.shape[1]):
        w = torch.linalg.lstsq(xs[:, :k], ys[:, :k, None], driver="gelsd").solution
        predictions[:, k] = (xs[:, k, None] @ w).flatten()
    return predictions.to(prompts.ys.dtype)


def ridge(prompts: Prompts, penalty: float, *, intercept: bool = True) -> Float[Tensor, "batch point"]:
    """y_k+1 from ridge regression on [1, x], intercept penalised too, over the k pairs before it.

    Args:
        prompts: xs and ys.
        penalty: added to the diagonal of X'X.
        intercept: whether to regress on [1, x] rather than on x.
    """
    xs = prompts.xs.double()
    features = torch.cat((torch.ones_like(xs[:, :, :1]), xs), dim=2) if intercept else xs
    ys = prompts.ys.double()
    outer = einsum(features, features, "batch point i, batch point j -> batch point i j")
    gram = before(outer) + penalty * torch.eye(features.shape[-1], dtype=torch.float64)
    moment = before(features * ys[:, :, None])
    w = torch.linalg.solve(gram, moment)
    return einsum(w, features, "batch point i, batch point i -> batch point").to(prompts.ys.dtype)


def best_ridge(prompts: Prompts) -> Float[Tensor, "batch point"]:
    """Ridge with the penalty of `RIDGE_PENALTIES` that does best on these very prompts: an optimistic baseline."""
    candidates = [ridge(prompts, penalty) for penalty in RIDGE_PENALTIES]
    return min(candidates, key=lambda prediction: (prediction - prompts.ys).square().mean().item())


def sign_of_ridge(prompts: Prompts) -> Float[Tensor, "batch point"]:
    """y_k+1 as the sign of a ridge fit (penalty 1) of the labels before it."""
    return ridge(prompts, 1.0).sign()


def averaging(prompts: Prompts) -> Float[Tensor, "batch point"]:
    """y_k+1 = w·x with w the mean of y_i x_i over the k pairs before it (Garg et al. 2022, 2208.01066)."""
    xs, ys = prompts.xs.double(), prompts.ys.double()
    w = before(xs * ys[:, :, None]) / count_before(ys)[:, None]
    return (w * xs).sum(-1).to(prompts.ys.dtype)


def gradient_descent(prompts: Prompts, steps: int) -> Float[Tensor, "batch point"]:
    """y_k+1 = w·x with w from full-batch gradient descent on |y - Xw|²/2 over the k pairs before it, from w = 0.

    Each prefix has its own step size, 1 / largest eigenvalue of X'X: there the loss falls at every step, along the
    leading direction to its minimum at once. With many steps, `least_squares`.

    Args:
        prompts: xs and ys.
        steps: how many.
    """
    xs, ys = prompts.xs.double(), prompts.ys.double()
    gram, moment = moments(xs, ys)
    largest = torch.linalg.eigvalsh(gram)[:, :, -1:]
    step_size = torch.where(largest > 0, 1 / largest, 0.0)
    w = torch.zeros_like(moment)
    for _ in range(steps):
        w = w + step_size * (moment - einsum(gram, w, "batch point i j, batch point j -> batch point i"))
    return (w * xs).sum(-1).to(prompts.ys.dtype)


def nearest_neighbours(prompts: Prompts, n_neighbours: int = 3) -> Float[Tensor, "batch point"]:
    """y_k+1 as the mean y of the nearest x before it, of all while there are fewer (Garg et al. 2022: 3).

    Args:
        prompts: xs and ys.
        n_neighbours: how many to average.
    """
    ys = prompts.ys.double()
    distances = distances_before(prompts.xs.double())
    nearest = distances.topk(min(n_neighbours, ys.shape[1]), dim=-1, largest=False)
    is_earlier = nearest.values.isfinite()
    total = torch.where(is_earlier, ys[:, None].expand_as(distances).gather(-1, nearest.indices), 0.0).sum(-1)
    return (total / is_earlier.sum(-1).clamp(min=1)).to(prompts.ys.dtype)


def lookup(prompts: Prompts) -> Float[Tensor, "batch point"]:
    """y_k+1 as the y of the latest x before it that is the same, 0 without one: associative recall."""
    is_same = distances_before(prompts.xs.double()) < MATCH
    order = torch.arange(1, is_same.shape[-1] + 1, device=is_same.device)
    latest = (is_same * order).max(-1).values
    return torch.where(latest > 0, prompts.ys.gather(1, (latest - 1).clamp(min=0)), 0.0)


def greedy_tree(prompts: Prompts, max_depth: int | None = None) -> Float[Tensor, "batch point"]:
    """y_k+1 from a regression tree grown greedily on the k pairs before it (Garg et al. 2022); one fit per prediction.

    Args:
        prompts: xs and ys.
        max_depth: of the tree; by default it grows until it fits.
    """
    from sklearn.tree import DecisionTreeRegressor

    xs, ys = prompts.xs.float().cpu().numpy(), prompts.ys.double().cpu().numpy()
    predictions = torch.zeros_like(prompts.ys)
    model = DecisionTreeRegressor(max_depth=max_depth, random_state=0)  # it permutes the dimensions for ties
    for prompt in progress_bar(range(len(ys)), desc="tree", unit="prompt"):
        for k in range(1, ys.shape[1]):
            grown = model.fit(xs[prompt, :k], ys[prompt, :k], check_input=False)
            predictions[prompt, k] = float(grown.predict(xs[prompt, k : k + 1], check_input=False)[0])
    return predictions

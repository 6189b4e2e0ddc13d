"""Parameters with a row for each example: their optimizer, clipping, going on after a crash."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from linear_gaussian import best_elbo, d, data, exact_elbo, pca
from shapes import unchecked_shapes
from subo.core.objective import Objective
from subo.data.splits import Split
from subo.errors import InputError
from subo.inference.row_adam import RowAdam
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional, Local
from subo.parts.families import Bernoulli
from subo.parts.location_scale import Gaussian
from subo.parts.networks import mlp
from subo.parts.priors import StandardNormal
from subo.runtime.devices import PrecisionName, make_fabric
from subo.runtime.randomness import forked
from subo.training.fitting import fit
from subo.training.history import Epoch
from subo.training.optimizers import Combined, clip_gradients, make_optimizer


def row_problem(num_rows: int = 5) -> tuple[nn.Parameter, nn.Parameter]:
    start = torch.randn(num_rows, 3, dtype=torch.float64)
    return nn.Parameter(start.clone()), nn.Parameter(start.clone())


def look_up(params: Tensor, index: list[int]) -> Tensor:
    return nn.functional.embedding(torch.tensor(index), params, sparse=True)


def test_a_row_that_is_always_met_moves_as_with_adam():
    rows, dense = row_problem()
    ours, adam = RowAdam([rows], lr=0.1), torch.optim.Adam([dense], lr=0.1)
    for step in range(20):
        for params, optimizer in ((rows, ours), (dense, adam)):
            optimizer.zero_grad()
            looked_up = look_up(params, [2]) if params is rows else params[[2]]
            (looked_up - step).pow(4).sum().backward()
            optimizer.step()
    assert_close(rows[2], dense[2], rtol=1e-13, atol=1e-13)


def test_a_row_keeps_its_own_time():
    """A row that is met seldom and late moves as it would by itself."""
    rows, dense = row_problem()
    before = rows.detach().clone()
    ours, adam = RowAdam([rows], lr=0.1), torch.optim.Adam([dense], lr=0.1)
    for step in range(30):
        ours.zero_grad()
        look_up(rows, [0, 3] if step % 7 == 6 else [0]).square().sum().backward()
        ours.step()
    for _ in range(4):
        adam.zero_grad()
        dense.square().sum().backward()
        adam.step()
    assert_close(rows[3], dense[3], rtol=1e-13, atol=1e-13)
    assert torch.equal(rows[[1, 2, 4]], before[[1, 2, 4]])


def test_repeated_rows_are_summed():
    rows, _ = row_problem()
    optimizer = RowAdam([rows], lr=0.1, betas=(0.9, 0.999))
    (2 * look_up(rows, [1, 1])).sum().backward()
    optimizer.step()
    state = optimizer.state[rows]
    assert_close(state["mean"][1], torch.full((3,), (1 - 0.9) * 4, dtype=torch.float64))
    assert state["count"].flatten().tolist() == [0, 1, 0, 0, 0]


def test_a_dense_gradient_is_refused():
    rows, _ = row_problem()
    rows.sum().backward()
    with pytest.raises(InputError, match=r"shape \(5, 3\) is dense.*sparse=True"):
        RowAdam([rows]).step()


def local_objective(num_data: int, *, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    decoder = Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,)))
    return Objective(VAE(StandardNormal(2), decoder, Local(Gaussian((2,)), num_data)))


def test_one_optimizer_serves_rows_and_what_they_share():
    objective = local_objective(9)
    optimizer = make_optimizer(objective, "SGD", learning_rate=0.5, rows_learning_rate=0.1)
    assert isinstance(optimizer, Combined)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(objective.parameters()))
    before = [parameter.detach().clone() for parameter in objective.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # as a schedule does
    objective(torch.ones(2, 5), {"index": torch.tensor([3, 7])}).loss.backward()
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(before, objective.parameters(), strict=True))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    moved = (objective.model.posterior.params != 0).any(1).nonzero().flatten()
    assert moved.tolist() == [3, 7]
    only = make_optimizer(Local(Gaussian((2,)), 3), rows_learning_rate=0.2)
    assert isinstance(only, RowAdam)
    assert only.param_groups[0]["lr"] == 0.2
    with pytest.raises(InputError, match="learning rate must be positive"):
        make_optimizer(objective, rows_learning_rate=0.0)


def test_clipping_knows_sparse_gradients():
    objective, dense = local_objective(9), local_objective(9)
    x, context = torch.ones(3, 5), {"index": torch.tensor([3, 7, 3])}
    for one in (objective, dense):
        with forked(1):
            one(x, context).loss.backward()
    posterior = dense.model.posterior
    posterior.params.grad = posterior.params.grad.to_dense()
    expected = torch.nn.utils.clip_grad_norm_(dense.parameters(), 0.1)
    norm = clip_gradients(make_fabric(device="cpu"), objective, make_optimizer(objective), 0.1)
    assert norm == pytest.approx(float(expected), rel=1e-6)
    for parameter, other in zip(objective.parameters(), dense.parameters(), strict=True):
        assert parameter.grad is not None
        assert_close(parameter.grad.to_dense(), other.grad)


class Stop(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_a_crashed_local_fit_resumes_bit_for_bit(tmp_path: Path, precision: PrecisionName):
    x = torch.bernoulli(torch.full((40, 5), 0.4))
    options = {
        "epochs": 5,
        "batch_size": 15,
        "decay": "cosine",
        "clip": 0.5,
        "updates": "alternating",
        "posterior_steps": 2,
    }

    def crash(epoch: Epoch) -> None:
        if epoch.epoch == 3:
            raise Stop

    def fabric():
        return make_fabric(device="cpu", precision=precision)

    whole, broken, resumed = local_objective(40), local_objective(40), local_objective(40, seed=5)
    history = fit(whole, Split(x), fabric=fabric(), **options)
    with pytest.raises(Stop):
        fit(broken, Split(x), run_dir=tmp_path, checkpoint_minutes=1e-9, on_epoch=crash, fabric=fabric(), **options)
    again = fit(resumed, Split(x), run_dir=tmp_path, resume=True, fabric=fabric(), **options)
    for parameter, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(parameter, other)
    assert [e.train for e in history.epochs] == [e.train for e in again.epochs]


@unchecked_shapes()
@pytest.mark.slow
def test_a_local_fit_of_a_linear_model_reaches_the_best_of_diagonal_posteriors():
    model, x = pca(Local(Gaussian((d,)), 60)), data(60)
    for parameter in model.likelihood.parameters():
        parameter.requires_grad_(False)
    objective = Objective(model, num_samples=16)
    optimizer = make_optimizer(objective, rows_learning_rate=0.1)
    fabric = make_fabric(device="cpu", precision="64-true")
    fit(objective, Split(x), epochs=300, batch_size=20, optimizer=optimizer, decay="cosine", fabric=fabric)
    q = model.posterior(x, index=torch.arange(60))
    assert (best_elbo(model, x) - exact_elbo(model.likelihood, q, x).detach()).mean() < 5e-3

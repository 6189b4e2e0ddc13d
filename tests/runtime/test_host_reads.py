"""Work that stays on its device: what reads a number is found, and which models' steps read none."""

import pytest
import torch
from torch.distributions import Distribution, Normal

import catalog
from subo import IWAE, InputError, Objective
from subo.runtime.host_reads import NoHostReads, reads_allowed

READ = (
    *("; local ", "hide by themselves", "markov", "state space"),
    *("flow likelihood", "vamp; inverse", "vamp; neural", "vamp, limited; inverse", "vamp, limited; neural"),
)
"""Models whose steps decide by a number: which rows of parameters, whether cells are missing, which steps are real, and
in which order a flow is inverted."""


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: torch.masked_select(x, x > 0),
        lambda x: x.unique(),
    ],
)
def test_what_python_must_see_is_refused_with_its_place(work):
    with NoHostReads(), pytest.raises(InputError, match=r"a number is read from the device.*test_host_reads\.py, line"):
        work(torch.ones(3))


def test_other_work_is_done_as_always():
    x = torch.randn(3, requires_grad=True)
    with NoHostReads():
        (x[torch.tensor([0, 2])] ** 2).sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach() * torch.tensor([1.0, 0.0, 1.0]))


def test_checks_of_distributions_are_off_inside_and_on_again_after():
    before = Distribution._validate_args
    with NoHostReads():
        assert not reads_allowed()
        Normal(torch.zeros(2), -torch.ones(2))
    assert reads_allowed()
    assert Distribution._validate_args == before
    with pytest.raises(ValueError, match="scale"):
        Normal(torch.zeros(2), -torch.ones(2))


def batch_for(label: str) -> tuple[torch.Tensor, dict]:
    context = catalog.context_of(catalog.NUM_DATA)
    if "markov" in label or "state space" in label:
        return (torch.rand(catalog.NUM_DATA, 4, 3) < 0.5).float(), context
    return (torch.rand(catalog.NUM_DATA, *catalog.DATA_SHAPE) < 0.5).float(), context


@pytest.mark.parametrize("label", [name for name in catalog.MODELS if "convolutions" not in name])
def test_a_step_of_a_model_reads_nothing(label):
    objective = Objective(catalog.MODELS[label]())
    x, context = batch_for(label)

    def step() -> None:
        objective(x, context).loss.backward()

    step()
    with NoHostReads():
        if any(name in label for name in READ):
            with pytest.raises(InputError, match="a number is read from the device"):
                step()
        else:
            step()


@pytest.mark.parametrize("label", catalog.GRADIENTS)
def test_a_step_of_a_gradient_reads_nothing(label):
    gradient = catalog.GRADIENTS[label]()
    for bound in ({}, {"bound": IWAE()}):
        objective = Objective(catalog.vae(), **bound, gradient=gradient, num_samples=4)
        x, context = batch_for(label)
        try:
            objective(x, context)
        except InputError:  # of the other bound
            continue
        torch.manual_seed(1)
        plain = objective(x, context)
        torch.manual_seed(1)
        with NoHostReads():
            watched = objective(x, context)
            watched.loss.backward()
        torch.testing.assert_close(watched.bound, plain.bound, rtol=0, atol=0)
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters())
        return
    raise AssertionError("neither bound has this gradient")

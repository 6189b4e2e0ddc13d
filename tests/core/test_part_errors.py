"""An error in a part of a model names the part and the shapes it was given; the error itself is left as it is."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from subo import (
    VAE,
    Block,
    BottomUp,
    Conditional,
    Correction,
    Gaussian,
    InputError,
    Ladder,
    Objective,
    PrecisionWeighted,
    StandardNormal,
    Update,
    fit,
    mlp,
)
from subo.core.context import call_part
from subo.models.graph import Child, Joint

D, B = 4, 5  # of x


@contextmanager
def assert_noted(part: str, given: str) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """Expects torch's own error, the innermost note of which names the part and what it was given."""
    with pytest.raises((RuntimeError, IndexError)) as error:
        yield error
    first = error.value.__notes__[0]
    assert re.match(rf"This came from {part}, which was given {given}", first), first


def gaussian(width: int, dim: int) -> Conditional:
    return Conditional(Gaussian((dim,)), mlp(width, 2 * dim))


def flat(*, to: int = 2, of: int = D) -> VAE:
    """A prior over 2 latents, a likelihood that takes `to` of them, a posterior that takes `of` data."""
    return VAE(StandardNormal(2), gaussian(to, D), gaussian(of, 2))


def chain(*, z1: int = 2, x: int = 3, q2: int = 3) -> VAE:
    """z2 of 2 elements -> z1 of 3 -> x, by networks of the given widths; and back, x -> z1 -> z2."""
    prior = Joint(z2=StandardNormal(2), z1=Child(Gaussian((3,)), mlp(z1, 6), "z2"))
    posterior = Joint(z1=gaussian(D, 3), z2=Child(Gaussian((2,)), mlp(q2, 4), "z1"))
    return VAE(prior, Child(Gaussian((D,)), mlp(x, 2 * D), "z1"), posterior)


def ladder(
    *, state: int = 6, prior: int = 6, features: int = 7, q: int = 13, project: int = 6, x: int = 6, merge: Any = None
) -> Ladder:
    """Layers z2 and z1 of 2 elements; the second block's networks have the given widths."""
    above = Block(gaussian(6, 2), Correction(gaussian(13, 2)), Update(nn.Linear(2, 6), mlp(6, state)))
    posterior = Correction(gaussian(q, 2)) if merge is None else merge
    below = Block(gaussian(prior, 2), posterior, Update(nn.Linear(2, project), mlp(6, 6)))
    up = BottomUp(mlp(D, 7), mlp(7, features))
    return Ladder([above, below], up, gaussian(x, D), start=torch.zeros(6))


class Told(nn.Module):
    """A Gaussian whose network reads c beside its input; without an input, c alone."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.inner = gaussian(width, dim)

    def forward(self, input: Tensor, c: Tensor) -> Distribution:
        return self.inner(torch.cat([input, c], 1))


class ToldAlone(Told):
    def forward(self, c: Tensor) -> Distribution:
        return self.inner(c)


def told() -> VAE:
    """c of 3 elements reaches likelihood and posterior."""
    return VAE(StandardNormal(2), Told(2 + 3, D), Told(D + 3, 2))


# Graphs


@pytest.mark.parametrize("use", [
    lambda model: model.sample(B),
    lambda model: model.prior().sample((B,)),
    lambda model: model.prior().log_prob({"z2": torch.zeros(B, 2), "z1": torch.zeros(B, 3)}),
    lambda model: model.draw(torch.zeros(B, D)),
])  # fmt: skip
def test_a_node_whose_network_has_another_width_is_named(use: Callable):
    with assert_noted(r"the node 'z1'", r"z2 of shape \(5, 2\)") as error:
        use(chain(z1=4))
    assert "(5x2 and 4x200)" in str(error.value)
    use(chain())


def test_a_node_of_a_posterior_is_named():
    with assert_noted(r"the node 'z2'", r"z1 of shape \(5, 3\)"):
        chain(q2=2).draw(torch.zeros(B, D))
    with assert_noted(r"the node 'z1'", r"input of shape \(5, 9\)"):
        chain().draw(torch.zeros(B, 9))


@pytest.mark.parametrize("use", [
    lambda model: model.sample(B),
    lambda model: model.draw(torch.zeros(B, D)).log_likelihood,
])  # fmt: skip
def test_a_likelihood_that_reads_a_node_of_another_width_is_named_with_all_latents(use: Callable):
    with assert_noted("the likelihood", r"(?=.*z2 of shape \(5, 2\)).*z1 of shape \(5, 3\)"):
        use(chain(x=7))


def test_a_graph_is_given_as_many_rows_of_everything():
    nodes: dict[str, Any] = {"z": Child(Gaussian((2,)), mlp(2 + 3, 4), "c", "x")}
    with pytest.raises(InputError, match=r"^the graph received .* 'c' of shape \(3, 2\) with x of .*\(5, 3\)"):
        Joint(**nodes)(torch.zeros(B, 3), c=torch.zeros(3, 2))
    with pytest.raises(InputError, match=r"the context 'x' of shape \(5, 3\) with c of shape \(1, 2\)"):
        Joint(**nodes)(c=torch.zeros(1, 2), x=torch.zeros(B, 3))
    q = Joint(**nodes)(torch.zeros(B, 3), c=torch.zeros(B, 1))
    with assert_noted(r"the node 'z'", r".*c of shape \(5, 1\)"):
        q.sample()


# A flat model


@pytest.mark.parametrize("use", [
    lambda model: model.sample(B),
    lambda model: model.draw(torch.zeros(B, D)).log_weight,
    lambda model: model.log_joint(torch.zeros(B, D), torch.zeros(1, B, 2)),
])  # fmt: skip
def test_a_likelihood_for_another_latent_size_is_named(use: Callable):
    with assert_noted(r"the likelihood", r"z of shape \(5, 2\)"):
        use(flat(to=3))


def test_fit_tells_a_part_that_does_not_fit_before_it_trains():
    with assert_noted(r"the likelihood", r"z of shape \(\d+, 2\)"):
        fit(Objective(flat(to=3)), torch.randn(20, D), epochs=1)
    with assert_noted(r"the posterior", r"x of shape \(\d+, 4\)"):
        fit(Objective(flat(of=9)), torch.randn(20, D), epochs=1)


def test_a_posterior_for_other_data_is_named():
    with assert_noted(r"the posterior", r"x of shape \(5, 4\)"):
        flat(of=9).draw(torch.zeros(B, D))


# Ladders


@pytest.mark.parametrize(("widths", "part", "given"), [
    ({"prior": 9}, "the prior of z1", r"h of shape \(\d+, 6\)"),
    ({"state": 8}, "the prior of z1", r"h of shape \(\d+, 8\)"),
    ({"project": 9}, "the update below z1", r"h of shape \(\d+, 6\), z1 of shape \(\d+, 2\)"),
    ({"x": 9}, "the likelihood", r"h of shape \(\d+, 6\)"),
], ids=str)  # fmt: skip
def test_a_layer_of_another_width_is_named(widths: dict, part: str, given: str):
    model = ladder(**widths)
    for use in (lambda: model.sample(B), lambda: model.draw(torch.zeros(B, D), num_samples=2).log_weight):
        with assert_noted(part, given):
            use()


@pytest.mark.parametrize(("widths", "part", "given"), [
    ({"q": 8}, "the posterior of z1", r"h of shape \(10, 6\), features of shape \(10, 7\), p over \(2,\)"),
    ({"features": 9}, "the posterior of z2", r"h of shape \(5, 6\), features of shape \(5, 9\), p over \(2,\)"),
    ({"merge": Correction(gaussian(13, 3))}, "the posterior of z1", r".* p over \(2,\)"),
    ({"merge": PrecisionWeighted(gaussian(9, 2))}, "the posterior of z1", r"h .* features of shape \(10, 7\)"),
], ids=["correction", "features", "event", "precision"])  # fmt: skip
def test_a_posterior_of_a_layer_is_named(widths: dict, part: str, given: str):
    model = ladder(**widths)
    model.sample(B)  # which asks for no posterior
    with assert_noted(part, given):
        model.draw(torch.zeros(B, D), num_samples=2)


@pytest.mark.parametrize("shape", [(B, 9), (B,), (B, 1, D + 1)])
def test_data_of_another_shape_are_refused_by_a_ladder(shape: tuple[int, ...]):
    with assert_noted(r"the pass up", r"x ") as error:
        ladder().draw(torch.zeros(shape))
    assert f"x of shape {shape}" in error.value.__notes__[0]


def test_leaves_of_another_shape_are_refused_by_a_ladder():
    model, wide, well = ladder(), torch.zeros(B, 3), torch.zeros(B, 2)
    message = r"^rows of z{} have the shape \(5, 3\); expected \(5, 2\), with its prior's event shape"
    for name, leaves in (("2", {"z2": wide}), ("1", {"z2": well, "z1": wide})):
        with pytest.raises(InputError, match=message.format(name)):
            model.sample(B, fixed=leaves)
    q = model.draw(torch.zeros(B, D)).q
    for name, z in (("2", {"z2": wide, "z1": well}), ("1", {"z2": well, "z1": wide})):
        lead = {key: leaf.unsqueeze(0) for key, leaf in z.items()}
        uses = (lambda z=z: model.decode(z), lambda z=lead: model.log_prior(z), lambda z=lead: q.log_prob(z))
        for use in uses:
            with pytest.raises(InputError, match=message.format(name)):
                use()
    with pytest.raises(InputError, match=r"^rows of z1 have the shape \(3, 2\); expected \(5, 2\)"):
        model.decode({"z2": well, "z1": well[:3]})


# The context


@pytest.mark.parametrize("num_samples", [1, 2])
def test_a_context_of_another_width_is_told_with_its_name(num_samples: int):
    model, c = told(), torch.zeros(B, 2)
    with assert_noted(r"the likelihood", r"z of shape \(5, 2\), c of shape \(5, 2\)"):
        model.sample(B, {"c": c, "other": c})
    with assert_noted(r"the posterior", r"x of shape \(5, 4\), c of shape \(5, 2\)"):
        model.draw(torch.zeros(B, D), {"c": c}, num_samples=num_samples)
    model.prior = ToldAlone(3, 2)
    with assert_noted(r"the prior", r"c of shape \(5, 2\)"):
        model.sample(B, {"c": c})


@pytest.mark.parametrize("rows", [(3, 3), (1, 3), (7, 3), ()], ids=str)
def test_a_context_has_a_row_for_each_datum_and_each_sample(rows: tuple[int, ...]):
    model, context = told(), {"c": torch.zeros(rows)}
    words = r"received the context 'c' of shape {} with {} of shape \(5, {}\); expected as many rows"
    shape = str(rows).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=words.format(shape, "z", 2)):
        model.sample(B, context)
    with pytest.raises(InputError, match=words.format(shape, "x", D)):
        model.draw(torch.zeros(B, D), context)
    with pytest.raises(InputError, match=words.format(shape, "z", 2)):
        model.decode(torch.zeros(B, 2), context)


@pytest.mark.parametrize("rows", [(3, 3), ()], ids=str)
def test_rows_of_context_are_told_as_they_came_and_not_as_those_of_samples(rows: tuple[int, ...]):
    flat_, tower, context = flat(), ladder(), {"c": torch.zeros(rows)}
    flat_.posterior, flat_.likelihood = Alone(flat_.posterior), Told(2 + 3, D)
    tower.likelihood = Told(6 + 3, D)
    for model in (flat_, tower):
        draw = model.draw(torch.zeros(B, D), context, num_samples=2)
        with pytest.raises(InputError) as error:
            draw.log_weight  # noqa: B018
        assert f"likelihood received the context 'c' of shape {rows} with x of shape (5, 4)" in str(error.value)


def test_one_row_of_context_is_not_broadcast():
    model = flat()
    model.likelihood = Moved(2, D)
    with pytest.raises(InputError, match=r"'c' of shape \(1, 2\) with z of shape \(5, 2\)"):
        model.sample(B, {"c": torch.zeros(1, 2)})
    model.sample(B, {"c": torch.zeros(B, 2)})
    with pytest.raises(InputError, match=r"^the likelihood received the context 'c' .* with h of .*\(5, 6\)"):
        tower = ladder()
        tower.likelihood = Moved(6, D)
        tower.sample(B, {"c": torch.zeros(1, 6)})


class Moved(Told):
    def forward(self, input: Tensor, c: Tensor) -> Distribution:
        return self.inner(input + c)


def test_a_prior_that_alone_is_told_the_context_tells_of_other_rows():
    model = VAE(ToldAlone(3, 2), nn.Identity(), flat().posterior)
    model.posterior = Alone(model.posterior)
    with pytest.raises(InputError, match="^the context has 3 rows, but 5 examples are in the batch: give one row each"):
        model.draw(torch.zeros(B, D), {"c": torch.zeros(3, 3)})


class Alone(nn.Module):
    """Hides what a module would take of the context."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Distribution:
        return self.inner(x)


# What is told, and what is not


class Raises(nn.Module):
    def __init__(self, error: Exception):
        super().__init__()
        self.error = error

    def forward(self, input: Tensor) -> Distribution:
        raise self.error


@pytest.mark.parametrize("error", [
    RuntimeError("the server of my features is away"),
    RuntimeError("mat1 and mat2 must have the same dtype, but got Double and Float"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    IndexError("list index out of range"),
    ValueError("mine"),
    InputError("a part within knows better"),
], ids=str)  # fmt: skip
def test_an_error_of_any_class_passes_as_it_is(error: Exception):
    tower = ladder()
    tower.bottom_up = Raises(error)
    for use in (
        lambda: VAE(StandardNormal(2), Raises(error), gaussian(D, 2)).sample(B),
        lambda: Joint(z=Raises(error))(torch.zeros(B, D)).sample(),
        lambda: tower.draw(torch.zeros(B, D)),
    ):
        with pytest.raises(type(error)) as raised:
            use()
        assert raised.value is error


def test_a_part_within_a_part_is_named_first():
    inner = Joint(z1=Child(Gaussian((2,)), mlp(9, 4), "x"))
    outer = Called(lambda x: inner(x).sample())
    with assert_noted(r"the node 'z1'", r"x of shape \(5, 4\)"):
        VAE(StandardNormal(2), nn.Identity(), outer).draw(torch.zeros(B, D))


class Called(nn.Module):
    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def test_a_note_keeps_the_error_and_names_all_that_was_given():
    with assert_noted("the encoder", r"x of shape \(5, 4\), c of shape \(5, 1\)\. If shapes do not match") as error:
        call_part("encoder", lambda x, c: torch.cat([x, c[:3]], 1), {"x": torch.zeros(B, D)}, {"c": torch.zeros(B, 1)})
    assert str(error.value).startswith("Sizes of tensors must match")

"""Any directed graph of latent variables: a distribution over named nodes, each given its parents.

A graph serves as prior and as posterior of a :class:`~subo.VAE`, which need not know about it: z is a dict, and
the draw has one factor per node.
"""

from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from subo.core import context as contexts
from subo.core.draw import Factor, sum_layers
from subo.errors import InputError
from subo.models.folding import _folded, _unfolded
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments
from subo.runtime.descriptions import described

__all__ = ["Child", "Joint", "JointDistribution"]

_INPUT = ("x", "input")  # a node's names for the input of the graph itself


class Child(nn.Module):
    """A conditional distribution with a network that reads some variables by name: ``family(network(parents))``.

    The parents' elements are concatenated, ``(N, all of their elements)``. As a likelihood it reads them out of z.

    Args:
        family: Parameters -> Distribution.
        network: ``(N, elements) -> (N, family.num_params)``.
        *parents: Names of nodes, of context entries, or ``x``, the input of a posterior.

    Example:
        >>> from subo import Gaussian, mlp
        >>> node = Child(Gaussian((2,)), mlp(5, 4), "z2", "label")
        >>> node(z2=torch.zeros(7, 4), label=torch.ones(7)).mean.shape
        torch.Size([7, 2])
    """

    @checked_arguments
    def __init__(self, family: Family, network: nn.Module, *parents: str):
        super().__init__()
        if not parents:
            raise InputError("a Child needs the name of at least one parent: Child(family, network, 'z2')")
        self.family = family
        self.network = network
        self.parents = parents

    def forward(self, z: dict[str, Tensor] | None = None, **named: Tensor) -> Distribution:
        values = named | (z or {})
        missing = [name for name in self.parents if name not in values]
        if missing:
            raise InputError(
                f"a node reads '{missing[0]}', but it receives {', '.join(sorted(values)) or 'nothing'}. Name a node "
                "of the graph, an entry of the context, or x."
            )
        like = next(self.network.parameters(), torch.zeros(()))
        rows = [values[name].to(like).reshape(len(values[name]), -1) for name in self.parents]
        return self.family(self.network(torch.cat(rows, dim=1)))


class Joint(nn.Module):
    r"""A distribution over a directed graph of variables, ``p(z) = prod_i p(z_i | parents of z_i)``.

    A node is any module (or function) whose call returns a Distribution; the parameters of its call name its parents:
    other nodes, entries of the batch's context, or ``x``, the data, if the graph is a posterior. It handles an
    ordinary batch of N rows. :class:`Child` reads parents by name for a network that takes one tensor.

    Args:
        **nodes: The nodes by name, in any order.

    Raises:
        InputError: There is no node, a node's parent is unknown, or parents form a cycle.

    Example:
        >>> from subo import VAE, Bernoulli, Conditional, Gaussian, StandardNormal, mlp
        >>> prior = Joint(z2=StandardNormal(2), z1=Child(Gaussian((3,)), mlp(2, 6), "z2"))
        >>> posterior = Joint(z1=Conditional(Gaussian((3,)), mlp(8, 6)), z2=Child(Gaussian((2,)), mlp(3, 4), "z1"))
        >>> model = VAE(prior, Child(Bernoulli((8,)), mlp(3, 8), "z1"), posterior)
        >>> draw = model.draw(torch.zeros(5, 8), num_samples=4)
        >>> draw.log_weight.shape, len(draw.factors), draw.z["z2"].shape
        (torch.Size([4, 5]), 2, torch.Size([4, 5, 2]))
    """

    def __init__(self, **nodes: Callable[..., object]):
        super().__init__()
        if not nodes:
            raise InputError("a graph needs at least one node: Joint(z=StandardNormal(2))")
        for name, node in nodes.items():
            if not callable(node) or isinstance(node, type):
                raise InputError(
                    f"node '{name}' is {described(node)}, but a node is a module that returns a Distribution"
                )
        self.modules_of = nn.ModuleDict({name: node for name, node in nodes.items() if isinstance(node, nn.Module)})
        self._functions = {name: node for name, node in nodes.items() if not isinstance(node, nn.Module)}
        declared = {name: _parents(node) for name, node in nodes.items()}
        for name, (required, takes_all) in declared.items():
            if takes_all and not required:
                raise InputError(
                    f"node '{name}' names no parent: its call takes **anything. Name the parents in its signature, or "
                    "use Child(family, network, 'parent')."
                )
        self.parents = {name: tuple(required) for name, (required, _) in declared.items()}
        edges = {name: {parent for parent in found if parent in nodes} for name, found in self.parents.items()}
        try:
            self.order = tuple(TopologicalSorter(edges).static_order())
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            raise InputError(
                f"the parents of the nodes form a cycle: {circle}. A graph needs a node to start with."
            ) from None

    def descendants(self, name: str) -> set[str]:
        """The nodes that depend on a node, directly or indirectly."""
        found = {name}
        for other in self.order:  # parents come first
            if found & set(self.parents[other]):
                found.add(other)
        return found - {name}

    def node(self, name: str) -> Callable[..., object]:
        """The module of a node."""
        return self.modules_of[name] if name in self.modules_of else self._functions[name]

    def forward(self, input: Tensor | None = None, **context: Tensor) -> "JointDistribution":
        known = dict(context) if input is None else {**context, **dict.fromkeys(_INPUT, input)}
        used = {parent for found in self.parents.values() for parent in found if parent in known} - set(self.order)
        for name, found in self.parents.items():
            unknown = [parent for parent in found if parent not in self.order and parent not in known]
            if unknown:
                raise InputError(
                    f"node '{name}' has the parent '{unknown[0]}', which is neither a node ({', '.join(self.order)}) "
                    f"nor among the graph's inputs ({', '.join(sorted(set(known) - {'input'})) or 'nothing'}). Rename "
                    "the parameter of its call, or pass context={...} with the data."
                )
        given = {} if input is None else {"x": input}
        given |= {name: known[name] for name in sorted(used - {"input"})}
        contexts.check_same_rows("the graph", {}, given)
        return JointDistribution(self, known, next((tensor.shape[:1] for tensor in given.values()), Size()))


def _parents(node: Any) -> tuple[tuple[str, ...], bool]:
    """The names that a node's call declares, and whether it takes any others."""
    return (node.parents, False) if isinstance(node, Child) else contexts.receives(node)


class JointDistribution(Distribution):
    """What a :class:`Joint` returns: samples and densities of all nodes, as dicts of tensors.

    Args:
        graph: The nodes.
        known: Their inputs other than nodes, leading axis B.
        batch_shape: ``(B,)``, or ``()`` for a prior without inputs.
    """

    arg_constraints: dict = {}  # noqa: RUF012 (torch's protocol)
    has_rsample = True  # nodes without one raise when they are sampled

    def __init__(self, graph: Joint, known: Mapping[str, Tensor], batch_shape: Size):
        self.graph, self.known = graph, known
        super().__init__(batch_shape, Size(), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Only each factor's own support is used."""
        return constraints.real

    def conditional(self, name: str, values: Mapping[str, Tensor], lead: Size) -> Distribution:
        """A node's distribution given its parents among `values`, leaves ``(*lead, *event)``.

        Returns:
            Distribution of batch shape `lead`, or shorter if the node does not depend on others.

        Raises:
            InputError: The node did not return a Distribution, or one with another batch shape.
        """
        graph, node = self.graph, self.graph.node(name)
        sampled = [parent for parent in graph.parents[name] if parent in graph.order]
        if not sampled:
            return _checked(name, self._called(name, self._given(node)), (Size(), self.batch_shape))
        rows = lead.numel()
        above = {parent: values[parent].reshape(rows, *values[parent].shape[len(lead) :]) for parent in sampled}
        known = {key: _folded(tensor, lead) for key, tensor in self._given(node).items()}
        p = _checked(name, self._called(name, known | above), (Size([rows]),))
        return p if len(lead) == 1 else _unfolded(p, lead)

    def _called(self, name: str, given: Mapping[str, Tensor]) -> Any:
        return contexts.call_part(f"node '{name}'", self.graph.node(name), {}, given)

    def _given(self, node: Any) -> dict[str, Tensor]:
        """The inputs of a node other than nodes; under one name only if it takes any."""
        names, takes_all = _parents(node)
        return {k: v for k, v in self.known.items() if k in names or (takes_all and k not in _INPUT)}

    def rsample(self, sample_shape: Sequence[int] = ()) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Ancestral samples, leaves ``(*sample, *batch, *event)``, differentiable in the parameters."""
        return self._drawn(Size(sample_shape), path=True)

    def sample(self, sample_shape: Sequence[int] = ()) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The same, without a gradient through the samples."""
        with torch.no_grad():
            return self._drawn(Size(sample_shape), path=False)

    def _drawn(self, sample_shape: Size, *, path: bool) -> dict[str, Tensor]:
        lead = sample_shape + self.batch_shape
        wide = lead if len(lead) else Size([1])
        values: dict[str, Tensor] = {}
        for name in self.graph.order:
            p = self.conditional(name, values, wide)
            if path and not p.has_rsample:
                raise InputError(
                    f"node '{name}' has no rsample ({type(p).__name__}): the gradient has no path from z to its "
                    "parameters. Use ScoreFunction, or a family that has a path."
                )
            shape = wide[: len(wide) - len(p.batch_shape)]
            values[name] = p.rsample(shape) if path else p.sample(shape)
        return values if len(lead) else {name: leaf.squeeze(0) for name, leaf in values.items()}

    def log_prob(self, value: Mapping[str, Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``sum_i log p(z_i | parents)``, with the leaves' leading shape.

        Raises:
            InputError: A node has no value.
        """
        given = tuple(value) if isinstance(value, Mapping) else ()
        missing = ", ".join(name for name in self.graph.order if name not in given)
        if missing:
            nodes = ", ".join(self.graph.order)
            raise InputError(f"expected a value by name for each node, {nodes}; there is none for {missing}")
        if self._is_lone(value):
            return self.log_prob({name: leaf.unsqueeze(0) for name, leaf in value.items()}).squeeze(0)
        return sum_layers([p.log_prob(value[name]) for name, p in self._conditionals(value).items()])

    def _is_lone(self, value: Mapping[str, Tensor]) -> bool:
        """Whether values are a single sample, without a leading axis."""
        root = self.graph.order[0]
        return value[root].ndim == len(self.conditional(root, value, Size([1])).event_shape)

    def factors(self, p: Distribution, z: Mapping[str, Tensor]) -> tuple[Factor, ...]:
        """One factor per node of this posterior, in the order of drawing, paired with the same node of the prior.

        A node's divergence is in closed form only where its parents in the prior do not depend on it in the posterior:
        ``E_q[log q(z1|x) - log p(z1|z2)]`` with z2 from ``q(z2|z1)`` is not the mean of ``KL(q(z1|x) || p(z1|z2))``.

        Args:
            p: The prior.
            z: Samples of this distribution, ``(K, B, *event)``.

        Raises:
            InputError: The prior is not a graph of the same nodes, or a node has another event shape there.
        """
        if not isinstance(p, JointDistribution) or set(p.graph.order) != set(self.graph.order):
            others = ", ".join(p.graph.order) if isinstance(p, JointDistribution) else type(p).__name__
            raise InputError(
                f"the posterior is a graph of the nodes {', '.join(self.graph.order)}, but the prior is {others}: both "
                "must be a Joint of the same nodes"
            )
        own, prior = self._conditionals(z), p._conditionals(z)
        return tuple(
            Factor(
                own[name],
                prior[name],
                z[name],
                closed_form=not self.graph.descendants(name) & set(p.graph.parents[name]),
            )
            for name in self.graph.order
        )

    def _conditionals(self, values: Mapping[str, Tensor]) -> dict[str, Distribution]:
        """Every node's distribution given the others' values, leaves ``(*lead, *event)``, lead not empty."""
        found: dict[str, Distribution] = {}
        lead: Size | None = None
        for name in self.graph.order:
            p = self.conditional(name, values, lead or Size([1]))
            shape = values[name].shape
            split = len(shape) - len(p.event_shape) if lead is None else len(lead)
            if p.event_shape != shape[split:]:
                raise InputError(
                    f"node '{name}' is over events of shape {tuple(p.event_shape)}, but its values have the shape "
                    f"{tuple(shape[split:])}: make it the same in prior and posterior"
                )
            lead = shape[:split]
            found[name] = p
        return found


def _checked(name: str, p: Any, batch_shapes: tuple[Size, ...]) -> Distribution:
    p = contexts.as_distribution(f"node '{name}'", p)
    if p.batch_shape not in batch_shapes:
        raise InputError(
            f"node '{name}' returned batch_shape {tuple(p.batch_shape)}; expected "
            f"{' or '.join(str(tuple(shape)) for shape in batch_shapes)}: the rows that it received. Dimensions of "
            "one example belong to its event: wrap it in Independent(..., 1)."
        )
    return p

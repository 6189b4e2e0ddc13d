"""Everything that the library offers, by name: a new bound, family, prior or model is one line here.

The conformance test and the laws run over all of it. Constructors take what they need to fit the small data
that every test uses, and nothing else.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from subo.core import bounds
from subo.core.objective import Objective
from subo.gradients import (
    VIMCO,
    DReG,
    GradientEstimator,
    GumbelSoftmax,
    Pathwise,
    ReinMax,
    ScoreFunction,
    StickingTheLanding,
    StraightThrough,
    WakePhi,
)
from subo.inference.semi_amortized import Refined
from subo.models.deep_markov import BackwardReader, Combiner, GatedTransition, Smoother, Start
from subo.models.emission import Emission
from subo.models.graph import Child, Joint
from subo.models.markov import Markov
from subo.models.probabilistic_pca import LinearGaussian, MeanFieldPosterior, probabilistic_pca
from subo.models.state_space import LinearGaussianStateSpace, StateSpacePosterior
from subo.models.vae import VAE
from subo.parts import cells, counts, networks, priors
from subo.parts import families as f
from subo.parts import labels as conditioning
from subo.parts import location_scale as ls
from subo.parts.columns import Columns
from subo.parts.conditionals import Conditional, Local
from subo.parts.coupling_flow import CouplingFlow
from subo.parts.flows import InverseAutoregressiveFlow, NeuralSplineFlow
from subo.recipes import hierarchical
from subo.recipes.ladder import ladder

NUM_DATA, LATENT_DIM, DATA_SHAPE = 4, 2, (6,)


def context_of(num_data: int) -> dict[str, Tensor]:
    """A context that holds every name that a module of the catalog declares."""
    return {
        "index": torch.arange(num_data) % NUM_DATA,
        "label": torch.arange(num_data) % 3,
        "given": torch.stack([torch.arange(num_data) / 4, torch.arange(num_data) % 3], 1),  # a number and a level
        "mask": torch.arange(4) <= torch.arange(num_data).unsqueeze(1) % 4,  # sequences of 1 to 4 steps
    }


# Families: event shape -> family

ELEMENTWISE: dict[str, Callable[[Sequence[int]], f.NamedFamily]] = {
    "bernoulli": lambda event: f.Bernoulli(event),
    "continuous-bernoulli": lambda event: f.ContinuousBernoulli(event),
    "categorical": lambda event: f.Categorical(event, num_classes=5),
    "poisson": lambda event: f.Poisson(event),
    "negative binomial, shared": lambda event: counts.NegativeBinomial(event, dispersion="shared"),
    "negative binomial, per dimension": lambda event: counts.NegativeBinomial(event),
    "negative binomial": lambda event: counts.NegativeBinomial(event, dispersion="network"),
    "zero-inflated negative binomial, per dimension": lambda event: counts.ZeroInflatedNegativeBinomial(event),
    "zero-inflated negative binomial": lambda event: counts.ZeroInflatedNegativeBinomial(event, dispersion="network"),
    "gaussian, fixed scale": lambda event: ls.Gaussian(event, 0.5),
    "gaussian, shared scale": lambda event: ls.Gaussian(event, "shared"),
    "gaussian, scale per dimension": lambda event: ls.Gaussian(event, "per-dimension"),
    "gaussian": lambda event: ls.Gaussian(event, "network"),
    "gaussian, in units": lambda event: ls.Gaussian(event, center=2.0, unit=3.0),
    "laplace, fixed scale": lambda event: ls.Laplace(event, 0.5),
    "laplace, shared scale": lambda event: ls.Laplace(event, "shared"),
    "laplace, scale per dimension": lambda event: ls.Laplace(event, "per-dimension"),
    "laplace": lambda event: ls.Laplace(event, "network"),
    "student t, fixed degrees": lambda event: ls.StudentT(event, 0.5, degrees_of_freedom=12.0),
    "student t, degrees per dimension": lambda event: ls.StudentT(event, "shared", degrees_of_freedom="per-dimension"),
    "student t": lambda event: ls.StudentT(event),
}
OVER_VECTORS: dict[str, Callable[[Sequence[int]], f.NamedFamily]] = {
    "full-rank gaussian": lambda event: ls.FullRankGaussian(event),
    "inverse autoregressive flow": lambda event: InverseAutoregressiveFlow(event, context_dim=3, hidden=(8,)),
    "neural spline flow": lambda event: NeuralSplineFlow(event, context_dim=3, hidden=(8,), bins=4),
}
KINDS = ("real", "category 3", "count", "positive", "ordinal 4", "boolean 2")
OF_TABLES: dict[str, Callable[[Sequence[int]], f.NamedFamily]] = {
    "columns": lambda event: Columns(event, columns=[KINDS[i % len(KINDS)] for i in range(event[0])]),
    "columns that hide by themselves": lambda event: Columns(
        event, columns=[KINDS[i % len(KINDS)] for i in range(event[0])], missing_model="self"
    ),
}
FAMILIES = ELEMENTWISE | OVER_VECTORS | OF_TABLES
CONTINUOUS = {label: make for label, make in (ELEMENTWISE | OVER_VECTORS).items() if not make((1,)).is_discrete}

# Posteriors: data shape -> q(z|x)

POSTERIORS: dict[str, Callable[[Sequence[int]], nn.Module]] = {
    **{label: lambda shape, make=make: amortized(make((LATENT_DIM,)), shape) for label, make in CONTINUOUS.items()},
    "local gaussian": lambda shape: Local(ls.Gaussian((LATENT_DIM,)), NUM_DATA),
    "local full-rank gaussian": lambda shape: Local(ls.FullRankGaussian((LATENT_DIM,)), NUM_DATA),
    "local coupling flow": lambda shape: Local(CouplingFlow((LATENT_DIM,), transforms=2, hidden=3), NUM_DATA),
}


def amortized(family: f.Family, shape: Sequence[int]) -> Conditional:
    return Conditional(family, networks.mlp(torch.Size(shape).numel(), family.num_params, hidden=(8,)))


# Priors: (q(z|x), pseudo-inputs) -> p(z)

PRIORS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "standard normal": lambda q, u: priors.StandardNormal(LATENT_DIM),
    "mixture": lambda q, u: priors.GaussianMixture(LATENT_DIM, components=3),
    "full-rank mixture": lambda q, u: priors.GaussianMixture(LATENT_DIM, components=3, covariance="full"),
    "vamp": lambda q, u: priors.VampPrior(q, u),
    "vamp, limited": lambda q, u: priors.VampPrior(q, u, limits=(0.0, 1.0)),
    "autoregressive flow": lambda q, u: priors.FlowPrior(LATENT_DIM, hidden=(8,)),
    "spline flow": lambda q, u: priors.FlowPrior(LATENT_DIM, kind="spline", hidden=(8,)),
}

# Bounds, all of which accept four samples

BOUNDS: dict[str, bounds.Bound] = {
    "elbo": bounds.ELBO(),
    "elbo, beta": bounds.ELBO(beta=4.0),
    "elbo, free bits": bounds.ELBO(free_bits=0.1),
    "elbo, monte carlo kl": bounds.ELBO(closed_form_kl=False),
    "iwae": bounds.IWAE(),
    "renyi, 0.5": bounds.Renyi(0.5),
    "miwae, groups": bounds.MIWAE(groups=2),
    "miwae, inner": bounds.MIWAE(inner=2),
}

# Gradient estimators

GRADIENTS: dict[str, Callable[[], GradientEstimator]] = {
    "pathwise": Pathwise,
    "sticking the landing": StickingTheLanding,
    "dreg": DReG,
    "score, no baseline": lambda: ScoreFunction("none"),
    "score, running mean": lambda: ScoreFunction("mean", normalize=True),
    "score, leave-one-out": ScoreFunction,
    "score, network": lambda: ScoreFunction(networks.mlp(6, 1, hidden=(4,))),
    "vimco": VIMCO,
    "wake phi": WakePhi,
}
DISCRETE_GRADIENTS: dict[str, Callable[[], GradientEstimator]] = {
    **{label: make for label, make in GRADIENTS.items() if not make().path},
    "straight-through": StraightThrough,
    "reinmax": ReinMax,
    "gumbel-softmax": GumbelSoftmax,
}

# Networks: constructor, shape of one input, shape of one output

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "mlp": (lambda: networks.mlp(5, 3), (5,), (3,)),
    "mlp, linear": (lambda: networks.mlp(5, 3, hidden=()), (5,), (3,)),
    "mlp, of images": (lambda: networks.mlp(12, 3), (1, 3, 4), (3,)),
    "residual mlp": (lambda: networks.residual_mlp(5, 3, hidden=(8, 8)), (5,), (3,)),
    "residual mlp, of images": (lambda: networks.residual_mlp(12, 3, hidden=(8,)), (1, 3, 4), (3,)),
    "standardize": (lambda: networks.Standardize(torch.ones(5), 2.0), (5,), (5,)),
    "standardize, within limits": (
        lambda: networks.Standardize(torch.ones(5), 2.0, within=(torch.zeros(5), torch.ones(5))), (5,), (5,),
    ),
    **{
        f"conv encoder, {shape}": (lambda shape=shape: networks.conv_encoder(shape, 3, hidden=8), shape, (3,))
        for shape in ((1, 28, 28), (3, 17, 23), (1, 8, 8), (2, 5, 1))
    },
    **{
        f"conv decoder, {shape}": (lambda shape=shape: networks.conv_decoder(3, shape, hidden=8), (3,), shape)
        for shape in ((1, 28, 28), (3, 17, 23), (1, 8, 8), (2, 5, 1), (1, 1, 1))
    },
    "conv encoder, three layers": (
        lambda: networks.conv_encoder((1, 9, 30), 3, channels=(2, 3, 4), hidden=8), (1, 9, 30), (3,),
    ),
    "conv decoder, three layers": (
        lambda: networks.conv_decoder(3, (1, 9, 30), channels=(2, 3, 4), hidden=8), (3,), (1, 9, 30),
    ),
}  # fmt: skip

# Whole models


def vae(prior: str = "standard normal", posterior: str = "gaussian", likelihood: str = "bernoulli") -> VAE:
    """A small model over data of the shape DATA_SHAPE."""
    q = POSTERIORS[posterior](DATA_SHAPE)
    p = FAMILIES[likelihood](DATA_SHAPE)
    decoder = Conditional(p, networks.mlp(LATENT_DIM, p.num_params, hidden=(8,)))
    return VAE(PRIORS[prior](q, torch.rand(3, *DATA_SHAPE)), decoder, q)


def conv_vae(image: tuple[int, int, int]) -> VAE:
    """Convolutions on both sides, and a likelihood of two numbers a pixel."""
    channels, height, width = image
    decoder = networks.conv_decoder(LATENT_DIM, (2 * channels, height, width), channels=(3, 4), hidden=8)
    encoder = networks.conv_encoder(image, 2 * LATENT_DIM, channels=(3, 4), hidden=8)
    return VAE(
        priors.StandardNormal(LATENT_DIM),
        Conditional(ls.Gaussian(image), decoder),
        Conditional(ls.Gaussian((LATENT_DIM,)), encoder),
    )


class LabelledPrior(nn.Module):
    """``p(z | label)``: batch shape ``(B,)``."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Embedding(3, LATENT_DIM)

    def forward(self, label: Tensor) -> Distribution:
        loc = self.loc(label)
        return Independent(Normal(loc, torch.ones_like(loc)), 1)


class Labelled(nn.Module):
    """A network that is given the label beside its input."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.bias = nn.Embedding(3, out_features)

    def forward(self, input: Tensor, label: Tensor) -> Tensor:
        return self.linear(input) + self.bias(label)


def conditional_vae() -> VAE:
    """``p(x, z | label)``: all three parts are given the label."""
    dim = DATA_SHAPE[0]
    return VAE(
        LabelledPrior(),
        Conditional(f.Bernoulli(DATA_SHAPE), Labelled(LATENT_DIM, dim)),
        Conditional(ls.Gaussian((LATENT_DIM,)), Labelled(dim, 2 * LATENT_DIM)),
    )


def by_label_vae() -> VAE:
    """``p(x, z | label)`` of the library's own parts: a row of parameters a class, one-hot labels beside the inputs."""
    dim = DATA_SHAPE[0]
    decoder = conditioning.Labelled(networks.mlp(LATENT_DIM + 3, dim, hidden=(8,)), num_labels=3)
    encoder = conditioning.Labelled(networks.mlp(dim + 3, 2 * LATENT_DIM, hidden=(8,)), num_labels=3)
    return VAE(
        conditioning.ByLabel(ls.Gaussian((LATENT_DIM,)), num_labels=3),
        Conditional(f.Bernoulli(DATA_SHAPE), decoder),
        Conditional(ls.Gaussian((LATENT_DIM,)), encoder),
    )


def given_vae() -> VAE:
    """``p(x, z | given)``: cells of a table beside the inputs of encoder and decoder."""
    kinds, dim = ("real", "category 3"), DATA_SHAPE[0]
    decoder = cells.beside_cells(lambda shape: networks.mlp(shape[0], dim, hidden=(8,)), (LATENT_DIM,), columns=kinds)
    encoder = cells.beside_cells(
        lambda shape: networks.mlp(shape[0], 2 * LATENT_DIM, hidden=(8,)), (dim,), columns=kinds
    )
    q = Conditional(ls.Gaussian((LATENT_DIM,)), encoder)
    return VAE(priors.StandardNormal(LATENT_DIM), Conditional(f.Bernoulli(DATA_SHAPE), decoder), q)


class Wide(nn.Module):
    """Probabilistic PCA's exact posterior moved aside, and in all directions as wide as in its widest: no weight is
    unbounded, hence every moment of the weights is finite.
    """

    def __init__(self, likelihood: LinearGaussian, *, shift: float = 0.3, factor: float = 1.0):
        super().__init__()
        self.likelihood, self.shift, self.factor = likelihood, shift, factor

    def forward(self, x: Tensor) -> Independent:
        loc = self.likelihood.posterior_mean(x) + self.shift
        widest = torch.linalg.eigvalsh(self.likelihood.precision())[0].rsqrt()
        return Independent(Normal(loc, self.factor * widest.expand_as(loc)), 1)


def wide_pca() -> VAE:
    likelihood = LinearGaussian(6, 2)
    return VAE(priors.StandardNormal(2), likelihood, Wide(likelihood))


def mean_field_pca() -> VAE:
    likelihood = LinearGaussian(6, 2)
    return VAE(priors.StandardNormal(2), likelihood, MeanFieldPosterior(likelihood))


def bits_vae() -> VAE:
    """Bits as latents, whose prior is learned."""
    family = f.Bernoulli((LATENT_DIM,))
    decoder = Conditional(f.Bernoulli(DATA_SHAPE), networks.mlp(LATENT_DIM, DATA_SHAPE[0], hidden=(8,)))
    return VAE(priors.BernoulliPrior(LATENT_DIM), decoder, amortized(family, DATA_SHAPE))


def categories_vae() -> VAE:
    """One-hot categories as latents."""
    family = f.OneHotCategorical((LATENT_DIM,), num_classes=3)
    decoder = Conditional(f.Bernoulli(DATA_SHAPE), networks.mlp(3 * LATENT_DIM, DATA_SHAPE[0], hidden=(8,)))
    return VAE(priors.CategoricalPrior(LATENT_DIM, num_classes=3), decoder, amortized(family, DATA_SHAPE))


def refined_vae(through: bool) -> VAE:
    """An encoder's parameters after some steps."""
    model = vae()
    return VAE(model.prior, model.likelihood, Refined(model, steps=2, through=through))


def markov_vae() -> VAE:
    """A chain whose steps a network makes, with a linear model's posterior."""
    decoder = Emission(ls.Gaussian((3,)), networks.mlp(LATENT_DIM, 6, hidden=(8,)))
    step = Conditional(ls.Gaussian((LATENT_DIM,)), networks.mlp(LATENT_DIM, 2 * LATENT_DIM, hidden=(8,)))
    return VAE(
        Markov(priors.StandardNormal(LATENT_DIM), step),
        decoder,
        StateSpacePosterior(LinearGaussianStateSpace(3, LATENT_DIM)),
    )


def deep_markov_vae() -> VAE:
    """A gated transition, and a posterior that reads backwards."""
    q = Smoother(BackwardReader(nn.Flatten(), 3, hidden=4), Combiner(LATENT_DIM, 4), LATENT_DIM)
    prior = Markov(Start((LATENT_DIM,)), Conditional(ls.Gaussian((LATENT_DIM,)), GatedTransition(LATENT_DIM, hidden=8)))
    return VAE(prior, Emission(f.Bernoulli((3,)), networks.mlp(LATENT_DIM, 3, hidden=(8,))), q)


def graph_vae() -> VAE:
    """A diamond: z3 is the parent of z2 and z1, and both of x; the posterior draws the other way round."""

    def child(family: f.Family, elements: int, *parents: str) -> Child:
        return Child(family, networks.mlp(elements, family.num_params, hidden=(8,)), *parents)

    prior = Joint(
        z3=priors.StandardNormal(2),
        z2=child(ls.Gaussian((3,)), 2, "z3"),
        z1=child(ls.FullRankGaussian((2,)), 2, "z3"),
    )
    posterior = Joint(
        z1=child(ls.FullRankGaussian((2,)), 6, "x"),
        z2=child(ls.Gaussian((3,)), 8, "x", "z1"),
        z3=child(ls.Gaussian((2,)), 5, "z1", "z2"),
    )
    return VAE(prior, child(f.Bernoulli(DATA_SHAPE), 5, "z1", "z2"), posterior)


def fit_together(prior: str, posterior: str) -> bool:
    """Whether a pair makes sense: pseudo-inputs have no index for a local posterior."""
    return not (prior.startswith("vamp") and posterior.startswith("local"))


MODELS: dict[str, Callable[[], VAE]] = {
    **{
        f"{prior}; {posterior}": lambda prior=prior, posterior=posterior: vae(prior, posterior)
        for prior in PRIORS
        for posterior in POSTERIORS
        if fit_together(prior, posterior)
    },
    **{f"{label} likelihood": lambda label=label: vae(likelihood=label) for label in FAMILIES},
    "convolutions, even": lambda: conv_vae((1, 8, 8)),
    "convolutions, odd": lambda: conv_vae((3, 7, 11)),
    "convolutions, thin": lambda: conv_vae((2, 5, 1)),
    "labelled": conditional_vae,
    "by label": by_label_vae,
    "given cells": given_vae,
    "probabilistic pca": lambda: probabilistic_pca(6, 2),
    "mean-field pca": mean_field_pca,
    "wide pca": wide_pca,
    "markov": markov_vae,
    "deep markov": deep_markov_vae,
    "linear-gaussian state space": lambda: LinearGaussianStateSpace(3, LATENT_DIM).as_vae(),
    "refined": lambda: refined_vae(through=True),
    "refined, stopped": lambda: refined_vae(through=False),
}

# Models whose latents are a dict, a layer each

LAYERED_MODELS: dict[str, Callable[[], nn.Module]] = {
    "two layers": lambda: layered(hierarchical, latent_dims=(4, 2), hidden_between=(8,)),
    "three layers": lambda: layered(hierarchical, latent_dims=(4, 3, 2), hidden_between=(8,)),
    "graph by hand": graph_vae,
    "ladder, residual": lambda: layered(ladder, latent_dims=(4, 3, 2), merge="residual"),
    "ladder, precision": lambda: layered(ladder, latent_dims=(4, 2), merge="precision"),
    "ladder of maps": lambda: layered(ladder, (1, 7, 5), latent_dims=(2, 3), network="conv", channels=(4, 4)),
}


def layered(recipe: Callable[..., Objective], event: Sequence[int] = DATA_SHAPE, **options: Any) -> nn.Module:
    """A recipe's model, away from where it starts: a ladder's posterior starts at its prior."""
    sizes = {"hidden": (8,) * len(options["latent_dims"])} if recipe is ladder else {"hidden": (8,)}
    model = recipe(event, likelihood="bernoulli", **(sizes | options)).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


DISCRETE_MODELS: dict[str, Callable[[], VAE]] = {"bits": bits_vae, "one-hot categories": categories_vae}

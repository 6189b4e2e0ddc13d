"""Option groups: settings that several recipes share, each group with a ``build`` for what it configures.

A group is a frozen record. The field that chooses by name is listed in `CHOICES` with the table of choices; an option
belongs to those entries that have a keyword of its name in their signature. `AUTO` defines what ``auto`` stands for: a
rule for each such field that sees all of a recipe's options and the size of the table or the set of images, None for
other data; no group is built with an ``auto``.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from torch import Size, Tensor, nn

from subo.errors import InputError
from subo.parts.counts import DispersionSource
from subo.parts.families import Family, NamedFamily
from subo.parts.location_scale import DegreesSource
from subo.parts.networks import ACTIVATIONS
from subo.parts.registry import LIKELIHOODS, NETWORKS, POSTERIORS, PRIORS, made, options_of
from subo.recipes.data_size import DataSize
from subo.recipes.ends import Ends, ends_of_columns, ends_of_numbers

if TYPE_CHECKING:  # for type checkers, names from tables are any text
    LikelihoodName: TypeAlias = str
    PosteriorName: TypeAlias = str
    PriorName: TypeAlias = str
    NetworkName: TypeAlias = str
    ActivationName: TypeAlias = str
    ActivationOrAuto: TypeAlias = str
else:
    LikelihoodName = Literal["auto", *LIKELIHOODS]
    PosteriorName = Literal[*POSTERIORS]
    PriorName = Literal["auto", *PRIORS]
    NetworkName = Literal[*NETWORKS]
    ActivationName = Literal[*sorted(ACTIVATIONS)]
    ActivationOrAuto = Literal["auto", *sorted(ACTIVATIONS)]

__all__ = [
    "ActivationName",
    "LatentOptions",
    "LikelihoodOptions",
    "NetworkOptions",
    "likelihood_for",
]


Rule: TypeAlias = Callable[[Mapping[str, Any], DataSize | None], Any]


def _fitting_scale(options: Mapping[str, Any], size: DataSize | None) -> str:
    """What ``scale`` auto stands for."""
    return "per-dimension" if size is None else size.scale


@dataclass(frozen=True)
class LikelihoodOptions:
    """The likelihood p(x|z).

    Args:
        likelihood: p(x|z); auto selects columns for tables, which describes each column by its kind, bernoulli for
            bits, student-t for other rows of numbers and gaussian for all else. poisson is for counts,
            negative-binomial for overdispersed counts, zero-inflated-negative-binomial for those with more zeros than
            that, categorical for classes, continuous-bernoulli for values that are confined to [0, 1], student-t for
            real values with outliers.
        scale: Scale of a gaussian, laplace or student-t likelihood and of a table's numbers, how far x lies from the
            mean of p(x|z): a fixed number, or learned: one for all of x (shared), one for each number in x
            (per-dimension), or computed from z by the decoder (network); auto selects network for rows of a table,
            else per-dimension. 1 is the standard deviation of the data, for a table that of each column; outliers do
            not count in it.
        min_scale: Lower limit of this scale: at 0 the density would be infinite. For a
            continuous-bernoulli likelihood, roughly the smallest standard deviation of its values, which lie in [0, 1];
            in Python, None removes that limit.
        degrees_of_freedom: For a student-t likelihood and a table's real numbers and dates: a fixed number above 2, or
            learned: one for all of x (shared) or one for each number in x (per-dimension). The fewer, the heavier the
            tails; many make a normal.
        dispersion: Dispersion a of a negative-binomial likelihood, zero-inflated or not, and of a table's counts, which
            has variance m + a m^2 for a mean m: a learned number for all of x (shared), one for each number in x
            (per-dimension), or computed from z by the decoder (network).
        missing_model: For tables, the model of which cells are missing: none takes them as missing at random, given the
            observed ones; with self each column has a probability of being missing that depends on the cell's own
            value. log p is then that of the observed cells and of which cells these are.
        num_classes: Number of values 0 .. num_classes - 1 of a categorical likelihood, one number or one per column; by
            default that of the data.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"likelihood": LIKELIHOODS}
    AUTO: ClassVar[Mapping[str, Rule]] = {"scale": _fitting_scale}

    likelihood: LikelihoodName = "auto"
    scale: float | Literal["auto", "shared", "per-dimension", "network"] = "auto"
    min_scale: float | None = 1e-3
    degrees_of_freedom: DegreesSource = "shared"
    dispersion: DispersionSource = "per-dimension"
    missing_model: Literal["none", "self"] = "none"
    num_classes: int | tuple[int, ...] | None = None

    def build(
        self,
        event: Size,
        *,
        examples: Tensor | None,
        columns: tuple[str, ...] | None = None,
        of_steps: bool = False,
    ) -> Ends:
        """The family of p(x|z) and the way of x into networks, for data of which these are examples."""
        name = self.likelihood
        if name == "auto":
            raise InputError("likelihood auto depends on the data: use likelihood_for(kind)")
        entry, own = LIKELIHOODS[name], asdict(self)
        if "num_classes" in options_of(entry) and self.num_classes is None:
            raise InputError(f"the likelihood {name} needs num_classes: one more than the largest value")
        if "scale" in options_of(entry) and self.min_scale is None:
            raise InputError(f"the likelihood {name} needs min_scale: without a floor its density is unbounded")
        if "columns" not in options_of(entry):
            make = partial(made, entry, event)
            return ends_of_numbers(event, lambda **units: make(**{**own, **units}), examples, of_steps=of_steps)
        if columns is None:
            raise InputError(f"the likelihood {name} describes the columns of a table, which these data are not")
        return ends_of_columns(columns, lambda **known: made(entry, event, **{**own, **known}), examples)


def likelihood_for(kind: str, *, rows: bool = False) -> str:
    """The likelihood that ``auto`` stands for: bernoulli for bits, columns for tables, else student-t or gaussian.

    Values alone do not reveal their meaning. A year or an age is whole but not a count, and a Poisson would set its
    variance equal to its mean; a feature that was scaled to [0, 1] may leave it in the next row. Counts, classes and
    values that are confined to [0, 1] must be named.

    Args:
        kind: Kind of the values, see :func:`subo.data.kind_of`.
        rows: Whether an example is a row of numbers, rather than an image or a step: rows hold outliers.
    """
    return {"binary": "bernoulli", "mixed": "columns"}.get(kind, "student-t" if rows else "gaussian")


def _fitting_latents(options: Mapping[str, Any], size: DataSize | None) -> int:
    """What ``latent_dim`` auto stands for."""
    return 10 if size is None else size.latent_dim


def _fitting_prior(options: Mapping[str, Any], size: DataSize | None) -> str:
    """What ``prior`` auto stands for."""
    if options.get("condition") == "labels":
        return "by-label"
    if options["posterior"] in PRIORS:  # discrete ones have the same name
        return options["posterior"]
    return "normal" if size is None else size.prior


def _fitting_covariance(options: Mapping[str, Any], size: DataSize | None) -> str:
    """What ``prior_covariance`` auto stands for."""
    dim = options["latent_dim"]
    entries = options["prior_components"] * dim * (dim + 1) // 2
    return "diagonal" if size is None else size.prior_covariance(entries)


@dataclass(frozen=True)
class LatentOptions:
    """The latents: their prior p(z), and the family of their posterior q(z|x).

    Args:
        latent_dim: Size of z; auto selects 16 for images, 50 for 10,000 or more, and for rows of a table as many as
            columns, at most 16 and a tenth of the rows; else 10.
        prior: p(z); auto selects what fits the posterior: normal, for rows of a table mixture, or bernoulli and
            categorical for such latents; and with condition labels by-label, which is learned per class. All others are
            the same whatever the condition.
        prior_components: Components of the mixture, or pseudo-inputs of the vamp prior.
        prior_covariance: Covariances of the mixture's components; auto selects full for a table with at least ten
            rows for each of their entries, else diagonal.
        posterior: Family of q(z|x); with bernoulli and categorical the latents are discrete.
        latent_classes: Number of values that each latent of the categorical posterior can take.
        flow_transforms: Number of maps in a flow, as prior or posterior.
        flow_hidden: Widths of each map's network, such as 64,64.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"prior": PRIORS, "posterior": POSTERIORS}
    AUTO: ClassVar[Mapping[str, Rule]] = {
        "latent_dim": _fitting_latents,
        "prior": _fitting_prior,
        "prior_covariance": _fitting_covariance,
    }

    latent_dim: int | Literal["auto"] = "auto"
    prior: PriorName = "auto"
    prior_components: int = 10
    prior_covariance: Literal["auto", "diagonal", "full"] = "auto"
    posterior: PosteriorName = "gaussian"
    latent_classes: int = 10
    flow_transforms: int = 2
    flow_hidden: tuple[int, ...] = (64, 64)

    def build_family(self) -> NamedFamily:
        """The family of q(z|x)."""
        assert self.latent_dim != "auto"
        return made(POSTERIORS[self.posterior], Size([self.latent_dim]), **asdict(self))

    def build_prior(
        self,
        latents: NamedFamily,
        *,
        posterior: nn.Module,
        likelihood: Family,
        inputs: Size,
        examples: Tensor | None,
        num_labels: int | None,
    ) -> nn.Module:
        """p(z), over the events of the latents' family; inputs and examples are those of `posterior`."""
        name, fitting = self.prior, self.posterior if latents.is_discrete else "normal"
        if name not in ("vamp", "by-label", fitting) and (latents.is_discrete or name in POSTERIORS):
            raise InputError(
                f"the prior {name} does not fit the latents of the posterior {self.posterior}: use prior {fitting}, "
                "or auto"
            )
        own = {"posterior": posterior, "likelihood": likelihood, "inputs": inputs, "examples": examples}
        own |= {"latents": latents, "num_labels": num_labels}
        return made(PRIORS[name], latents.event_shape, **{**asdict(self), **own})


def _fitting_widths(options: Mapping[str, Any], size: DataSize | None) -> tuple[int, ...]:
    """What ``hidden`` auto stands for."""
    return (200, 200) if size is None else size.widths


def _fitting_activation(options: Mapping[str, Any], size: DataSize | None) -> str:
    """What ``activation`` auto stands for."""
    return "tanh" if size is None else size.activation


def _fitting_dropout(options: Mapping[str, Any], size: DataSize | None) -> float:
    """What ``dropout`` auto stands for."""
    return 0.0 if size is None else size.dropout


@dataclass(frozen=True)
class NetworkOptions:
    """Encoder and decoder.

    Args:
        network: Kind of encoder and decoder; conv is for images.
        hidden: Widths of the encoder's hidden layers, such as 200,200; the decoder has the same in reverse. A
            convolutional network (conv) has one, after its convolutions, with the last of these widths. auto selects
            256,256 for images, 500,500 for 10,000 or more, and for rows of a table two layers of 32 to 256, wider for
            more rows; else 200,200.
        channels: Channels of the convolutions, such as 32,64; each halves the image.
        activation: Nonlinearity of encoder and decoder; auto selects silu for images and rows of a table, else tanh.
        dropout: Share of the encoder's hidden units that are dropped in training, which keeps q(z|x) from fitting
            itself to single examples; auto selects 0.2 for tables with more columns than rows, else 0.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"network": NETWORKS}
    AUTO: ClassVar[Mapping[str, Rule]] = {
        "hidden": _fitting_widths,
        "activation": _fitting_activation,
        "dropout": _fitting_dropout,
    }

    network: NetworkName = "mlp"
    hidden: tuple[int, ...] | Literal["auto"] = "auto"
    channels: tuple[int, ...] = (32, 64)
    activation: ActivationOrAuto = "auto"
    dropout: float | Literal["auto"] = "auto"

    def encoder(self, event: Size, outputs: int) -> nn.Module:
        """Builds the network from x to a number of outputs."""
        return made(NETWORKS[self.network].encoder, event, outputs, **asdict(self))

    def decoder(self, latents: Size, family: Family) -> nn.Module:
        """Builds the network from z to the parameters of the likelihood's family."""
        return made(NETWORKS[self.network].decoder, latents, family, **asdict(self))

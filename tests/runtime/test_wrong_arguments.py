"""No wrong argument of anything public is a raw error, or passes in silence: every parameter in turn is something else.

A row is a call that is right. From it calls are made that are wrong in one argument each, and every one of them works
or is refused with an InputError, whatever the argument.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import subo
from subo import Conditional, Gaussian, StandardNormal
from subo.data.splits import Split
from subo.errors import DivergedError, InputError
from subo.evaluation import Annealing, ais, bdmc, gaps

Row = tuple[Callable[..., Any], dict[str, Any]]

X = torch.linspace(-1, 1, 20).reshape(4, 5)
SEQUENCES = torch.linspace(-1, 1, 24).reshape(4, 3, 2)
MASK = torch.ones(4, 3, dtype=torch.bool)
NORMAL = Gaussian((2,))


def conditional(inputs: int = 5, dim: int = 2) -> Conditional:
    return Conditional(Gaussian((dim,)), nn.Linear(inputs, 2 * dim))


def block() -> subo.Block:
    posterior = subo.Correction(conditional(8))
    return subo.Block(conditional(4), posterior, subo.Update(nn.Linear(2, 4), nn.Identity()))


def ladder() -> subo.Ladder:
    return subo.Ladder([block()], subo.BottomUp(nn.Linear(5, 4)), conditional(4, 5), start=torch.zeros(4))


def pca() -> subo.VAE:
    return subo.probabilistic_pca(5, 2)


def encoded() -> subo.VAE:
    """Probabilistic PCA with an encoder, whose gaps can be measured."""
    return subo.VAE(pca().prior, pca().likelihood, conditional())


def of_columns() -> subo.VAE:
    family = subo.Columns((2,), columns=("real", "real"))
    return subo.VAE(StandardNormal(2), Conditional(family, nn.Linear(2, 2)), conditional(2))


def hidden_markov() -> subo.HiddenMarkov:
    return subo.HiddenMarkov(3, NORMAL, length=3)


def state_space() -> subo.LinearGaussianStateSpace:
    return subo.LinearGaussianStateSpace(2, 2, length=3)


def saved() -> Path:
    """A model's file, in the present folder."""
    subo.save(subo.make("vae", X, latent_dim=2, hidden=(4,)), "saved.safetensors")
    return Path("saved.safetensors")


def fitted() -> Path:
    """A run's folder, in the present one."""
    subo.fit(subo.Objective(pca()), X, epochs=1, run_dir="run")
    return Path("run")


@cache
def fitted_to_digits() -> Any:
    """A run whose page is quickly made."""
    return subo.open_run(Path(__file__).parents[1] / "runs-of-0.1" / "grey")


def draw() -> subo.Draw:
    return pca().draw(X, num_samples=4)


def trained(**arguments: Any) -> Any:
    return next(iter(subo.train(**arguments)), None)


def bootstrapped(**arguments: Any) -> Any:
    return next(iter(subo.bootstrap(**arguments)), None)


bootstrapped.__signature__ = inspect.signature(subo.bootstrap)  # pyright: ignore[reportFunctionMemberAccess]
trained.__signature__ = inspect.signature(subo.train)  # pyright: ignore[reportFunctionMemberAccess]


def estimator(**options: Any) -> subo.VariationalAutoencoder:
    return subo.VariationalAutoencoder(**options).fit(X.numpy())


estimator.__signature__ = inspect.signature(subo.VariationalAutoencoder)  # pyright: ignore[reportFunctionMemberAccess]

SHAPE = {"event_shape": (2,)}
FAMILY = {"family": NORMAL, "network": nn.Linear(5, 4)}
FLOW = SHAPE | {"context_dim": 3, "transforms": 1, "hidden": (4,)}
NETWORK = {"in_features": 5, "out_features": 2, "hidden": (4,)}
CHAINS: dict[str, Any] = {"temperatures": 2, "chains": 2, "leapfrog_steps": 1}
ANNEALED = {"annealing": Annealing(**CHAINS)}
SMALL = {"epochs": 1, "hidden": (4,), "random_state": 0, "evaluation_samples": 5}
Z = torch.zeros(3, 4, 2)


def few_gaps() -> Any:
    """Gaps of the model with an encoder, roughly."""
    return gaps(encoded(), X, ascent=subo.Ascent(steps=2), annealing=None, num_samples=5)


ROWS: dict[str, Callable[[], Row]] = {
    # Families, and conditional distributions
    "Bernoulli": lambda: (subo.Bernoulli, SHAPE),
    "Bernoulli.params_of_mean": lambda: (subo.Bernoulli((5,)).params_of_mean, {"mean": X.sigmoid()}),
    "Categorical": lambda: (subo.Categorical, SHAPE | {"num_classes": (3, 4)}),
    "ContinuousBernoulli": lambda: (subo.ContinuousBernoulli, SHAPE),
    "ContinuousBernoulli.params_of_mean": lambda: (
        subo.ContinuousBernoulli((5,)).params_of_mean, {"mean": X.sigmoid()},
    ),
    "CouplingFlow": lambda: (subo.CouplingFlow, SHAPE | {"transforms": 1, "hidden": 4}),
    "FullRankGaussian": lambda: (subo.FullRankGaussian, SHAPE),
    "Gaussian": lambda: (Gaussian, SHAPE | {"center": torch.zeros(2), "unit": torch.ones(2)}),
    "InverseAutoregressiveFlow": lambda: (subo.InverseAutoregressiveFlow, FLOW),
    "Laplace": lambda: (subo.Laplace, SHAPE),
    "NegativeBinomial": lambda: (subo.NegativeBinomial, SHAPE),
    "ZeroInflatedNegativeBinomial": lambda: (subo.ZeroInflatedNegativeBinomial, SHAPE),
    "ZeroInflatedNegativeBinomial.params_of_mean": lambda: (
        subo.ZeroInflatedNegativeBinomial((5,)).params_of_mean,
        {"mean": X.exp()},
    ),
    "NegativeBinomial.params_of_mean": lambda: (subo.NegativeBinomial((5,)).params_of_mean, {"mean": X.exp()}),
    "NeuralSplineFlow": lambda: (subo.NeuralSplineFlow, FLOW),
    "OneHotCategorical": lambda: (subo.OneHotCategorical, SHAPE | {"num_classes": 3}),
    "StudentT": lambda: (subo.StudentT, SHAPE),
    "Poisson": lambda: (subo.Poisson, SHAPE),
    "Poisson.params_of_mean": lambda: (subo.Poisson((5,)).params_of_mean, {"mean": X.exp()}),
    "ByLabel": lambda: (subo.ByLabel, {"family": NORMAL, "num_labels": 3}),
    "Conditional": lambda: (Conditional, FAMILY),
    "Given": lambda: (subo.Given, {"family": NORMAL, "params": torch.zeros(4, 4)}),
    "Local": lambda: (subo.Local, {"family": NORMAL, "num_data": 4}),
    "Emission": lambda: (subo.Emission, FAMILY),
    # Priors
    "BernoulliPrior": lambda: (subo.BernoulliPrior, SHAPE),
    "CategoricalPrior": lambda: (subo.CategoricalPrior, {"dim": 2, "num_classes": 3}),
    "FlowPrior": lambda: (subo.FlowPrior, {"dim": 2, "transforms": 1, "hidden": (4,)}),
    "GaussianMixture": lambda: (subo.GaussianMixture, {"dim": 2}),
    "StandardNormal": lambda: (StandardNormal, SHAPE),
    "VampPrior": lambda: (
        subo.VampPrior, {"posterior": conditional(), "pseudo_inputs": X.sigmoid(), "limits": (0.0, 1.0)},
    ),
    "Markov": lambda: (subo.Markov, {"initial": StandardNormal(2), "transition": conditional(2), "length": 3}),
    "MarkovDistribution": lambda: (
        subo.MarkovDistribution, {"first": StandardNormal(2)(), "transition": conditional(2), "length": 3},
    ),
    # Networks, and parts of models
    "mlp": lambda: (subo.mlp, NETWORK),
    "residual_mlp": lambda: (subo.residual_mlp, NETWORK),
    "conv_decoder": lambda: (
        subo.conv_decoder, {"in_features": 2, "image_shape": (1, 4, 4), "channels": (2,), "hidden": 4},
    ),
    "conv_encoder": lambda: (
        subo.conv_encoder, {"image_shape": (1, 4, 4), "out_features": 2, "channels": (2,), "hidden": 4},
    ),
    "Block": lambda: (subo.Block, {"prior": conditional(4), "posterior": conditional(8), "update": nn.Identity()}),
    "BottomUp": lambda: (subo.BottomUp, {"stages": (nn.Linear(5, 4),)}),
    "Correction": lambda: (subo.Correction, {"proposal": conditional(8)}),
    "PrecisionWeighted": lambda: (subo.PrecisionWeighted, {"proposal": conditional(4)}),
    "Update": lambda: (subo.Update, {"project": nn.Linear(2, 4), "network": nn.Identity()}),
    "Labelled": lambda: (subo.Labelled, {"network": nn.Linear(8, 2), "num_labels": 3}),
    "Stack": lambda: (subo.Stack, {"networks": (nn.Linear(5, 4),)}),
    "Child": lambda: (subo.Child, FAMILY | {"parents": ("x",)}),
    "Joint": lambda: (subo.Joint, {"nodes": {"z": StandardNormal(2)}}),
    "Refined": lambda: (
        subo.Refined, {"model": subo.VAE(StandardNormal(2), conditional(2, 5), conditional()), "steps": 1},
    ),
    # Models
    "HiddenMarkov": lambda: (subo.HiddenMarkov, {"num_states": 3, "family": NORMAL}),
    "HiddenMarkov.log_px": lambda: (hidden_markov().log_px, {"x": SEQUENCES, "mask": MASK}),
    "HiddenMarkov.posterior_marginals": lambda: (
        hidden_markov().posterior_marginals, {"x": SEQUENCES, "mask": MASK},
    ),
    "HiddenMarkov.pairwise_marginals": lambda: (hidden_markov().pairwise_marginals, {"x": SEQUENCES, "mask": MASK}),
    "HiddenMarkov.most_likely_path": lambda: (hidden_markov().most_likely_path, {"x": SEQUENCES, "mask": MASK}),
    "HiddenMarkov.draw": lambda: (hidden_markov().draw, {"x": SEQUENCES}),
    "HiddenMarkov.sample": lambda: (hidden_markov().sample, {"num_samples": 3}),
    "Ladder": lambda: (
        subo.Ladder,
        {
            "blocks": [block()],
            "bottom_up": subo.BottomUp(nn.Linear(5, 4)),
            "likelihood": conditional(4, 5),
            "start": torch.zeros(4),
        },
    ),
    "Ladder.draw": lambda: (ladder().draw, {"x": X}),
    "Ladder.log_joint": lambda: (ladder().log_joint, {"x": X, "z": {"z1": Z}}),
    "Ladder.decode": lambda: (ladder().decode, {"z": {"z1": Z[0]}}),
    "Ladder.sample": lambda: (ladder().sample, {"num_samples": 3}),
    "Ladder.sample_below": lambda: (ladder().sample_below, {"rows": 2, "columns": 3}),
    "LinearGaussianStateSpace": lambda: (subo.LinearGaussianStateSpace, {"dim": 2, "latent_dim": 2}),
    "LinearGaussianStateSpace.log_px": lambda: (state_space().log_px, {"x": SEQUENCES, "mask": MASK}),
    "LinearGaussianStateSpace.filter": lambda: (state_space().filter, {"x": SEQUENCES, "mask": MASK}),
    "LinearGaussianStateSpace.smooth": lambda: (state_space().smooth, {"x": SEQUENCES, "mask": MASK}),
    "VAE": lambda: (
        subo.VAE, {"prior": StandardNormal(2), "likelihood": conditional(2, 5), "posterior": conditional()},
    ),
    "VAE.draw": lambda: (pca().draw, {"x": X}),
    "VAE.log_prior": lambda: (pca().log_prior, {"z": Z}),
    "VAE.log_joint": lambda: (pca().log_joint, {"x": X, "z": Z}),
    "VAE.sample": lambda: (pca().sample, {"num_samples": 3}),
    "VAE.decode": lambda: (pca().decode, {"z": Z[0]}),
    "probabilistic_pca": lambda: (subo.probabilistic_pca, {"dim": 5, "latent_dim": 2}),
    # Bounds, their gradients, and training
    "ELBO": lambda: (subo.ELBO, {}),
    "ELBO.__call__": lambda: (subo.ELBO().__call__, {"draw": draw()}),
    "ELBO.tempered": lambda: (subo.ELBO().tempered, {"weight": 0.5}),
    "IWAE": lambda: (subo.IWAE, {}),
    "IWAE.__call__": lambda: (subo.IWAE().__call__, {"draw": draw()}),
    "MIWAE": lambda: (subo.MIWAE, {"groups": 2}),
    "MIWAE.__call__": lambda: (subo.MIWAE(2).__call__, {"draw": draw()}),
    "Renyi": lambda: (subo.Renyi, {"alpha": 0.5}),
    "Renyi.__call__": lambda: (subo.Renyi(0.5).__call__, {"draw": draw()}),
    "DReG": lambda: (subo.DReG, {}),
    "GumbelSoftmax": lambda: (subo.GumbelSoftmax, {}),
    "Pathwise": lambda: (subo.Pathwise, {}),
    "ScoreFunction": lambda: (subo.ScoreFunction, {}),
    "StickingTheLanding": lambda: (subo.StickingTheLanding, {}),
    "StraightThrough": lambda: (subo.StraightThrough, {}),
    "ReinMax": lambda: (subo.ReinMax, {}),
    "VIMCO": lambda: (subo.VIMCO, {}),
    "WakePhi": lambda: (subo.WakePhi, {}),
    "Objective": lambda: (subo.Objective, {"model": pca()}),
    "Objective.forward": lambda: (subo.Objective(pca()).forward, {"x": X}),
    "train": lambda: (trained, {"objective": subo.Objective(pca()), "batches": [X], "steps": 1}),
    "fit": lambda: (subo.fit, {"objective": subo.Objective(pca()), "data": X, "epochs": 1}),
    "VariationalAutoencoder": lambda: (estimator, SMALL),
    "VariationalAutoencoder.sample": lambda: (estimator(**SMALL).sample, {"n_samples": 3}),
    # Data, weights, and what is asked of a fitted model
    "load_data": lambda: (subo.load_data, {"source": "digits"}),
    "make": lambda: (subo.make, {"recipe": "vae", "data": X}),
    "save": lambda: (subo.save, {"model": pca(), "path": "model.safetensors"}),
    "load_model": lambda: (subo.load_model, {"path": saved()}),
    "explore": lambda: (subo.explore, {"run": fitted_to_digits()}),
    "open_run": lambda: (subo.open_run, {"path": Path(__file__).parents[1] / "runs-of-0.1" / "grey"}),
    "load_weights": lambda: (subo.load_weights, {"model": pca(), "run_dir": fitted()}),
    "compare": lambda: (subo.compare, {"models": {"a": pca(), "b": pca()}, "split": Split(X), "num_samples": 5}),
    "Columns": lambda: (subo.Columns, {"event_shape": (2,), "columns": ("real", "count"), "scale": 0.5}),
    "impute": lambda: (subo.impute, {"model": of_columns(), "split": X[:, :2], "num_draws": 2, "num_samples": 5}),
    "pooled": lambda: (
        subo.pooled,
        {"estimates": np.ones(4), "variances": np.ones(4), "complete_degrees": 9.0, "refits": 2},
    ),
    "bootstrap": lambda: (
        bootstrapped,
        {"build": lambda data, seed: subo.Objective(pca()), "data": X, "refits": 2, "seed": 0, "epochs": 1},
    ),
    "likelihood_regret": lambda: (
        subo.likelihood_regret,
        {"model": encoded(), "split": X, "ascent": subo.Ascent(steps=2), "num_samples": 5},
    ),
    "training_settings": lambda: (subo.training_settings, {"objective": subo.Objective(encoded()), "data": X}),
    "evaluate": lambda: (subo.evaluate, {"model": pca(), "split": X, "num_samples": 5}),
    "log_marginal": lambda: (subo.log_marginal, {"model": pca(), "x": X, "num_samples": 5}),
    "infer": lambda: (subo.infer, {"model": pca(), "x": X, "family": NORMAL, "ascent": subo.Ascent(steps=2)}),
    "Ascent": lambda: (subo.Ascent, {}),
    "Annealing": lambda: (Annealing, CHAINS),
    "ais": lambda: (ais, {"model": pca(), "x": X} | ANNEALED),
    "bdmc": lambda: (bdmc, {"model": pca(), "num_data": 3, "num_samples": 4} | ANNEALED),
    # Pictures
    "plot.latent_plane": lambda: (subo.plot.latent_plane, {"model": pca(), "split": X}),
    "plot.kl_by_dimension": lambda: (subo.plot.kl_by_dimension, {"model": pca(), "split": X}),
    "plot.reconstructions": lambda: (subo.plot.reconstructions, {"model": pca(), "split": X}),
    "plot.samples": lambda: (subo.plot.samples, {"model": pca(), "num_samples": 3}),
    "plot.decoder_plane": lambda: (subo.plot.decoder_plane, {"model": pca()}),
    "plot.history": lambda: (subo.plot.history, {"history": subo.fit(subo.Objective(pca()), X, epochs=2)}),
    "plot.gaps": lambda: (subo.plot.gaps, {"gaps": few_gaps()}),
}  # fmt: skip

MADE = {"Draw", "Factor", "Inferred", "Loss", "Data", "Split", "DivergedError", "InputError", "Interrupted"}
"""What the library makes or raises, and records."""
BASES = {"GradientEstimator", "LatentVariableModel"}

STEPS = {"VAE.draw", "VAE.log_prior", "VAE.log_joint", "VAE.decode", "Objective.forward", "MarkovDistribution", "Given"}
STEPS |= {"Ladder.draw", "Ladder.log_joint", "Ladder.decode", "HiddenMarkov.draw"}
"""What a step of training calls looks at its arguments where it fails. What does not make it fail passes, and numbers
that are not finite are told by the loss."""
WITH_GAPS = {f"HiddenMarkov.{name}" for name in ("log_px", "posterior_marginals", "pairwise_marginals")}
WITH_GAPS |= {"HiddenMarkov.most_likely_path"}
WITH_GAPS |= {f"LinearGaussianStateSpace.{name}" for name in ("log_px", "filter", "smooth")}
"""What takes NaN for a missing value."""
INFINITE = {("Renyi", "alpha")}


ELSEWHERE = {"Annealing", "ais", "bdmc", "plot"}  # which `subo.evaluation` and `subo.plot` offer


def test_every_public_name_has_a_row():
    assert {name.split(".")[0] for name in ROWS} - ELSEWHERE == set(subo.__all__) - MADE - BASES


def kinds(annotation: Any) -> Iterator[Any]:
    """The kinds of which an annotation takes any, and those of their members; of a function and words, none."""
    yield get_origin(annotation) or annotation
    if get_origin(annotation) not in (Callable, Literal):
        for member in get_args(annotation):
            yield from kinds(member)


def is_tensor(kind: Any) -> bool:
    return kind is Tensor or hasattr(kind, "array_type")


def wrong(annotation: Any, right: Any) -> Iterator[tuple[str, Any]]:
    """Values that a parameter of an annotation might be given by mistake, by what they are."""
    asked = set(kinds(annotation))
    yield from {"nothing": None, "text": "x", "object": object(), "fraction": 2.5, "nan": math.nan}.items()
    yield from {"negative": -5, "array": np.zeros((4, 5), dtype=np.float32)[::-1], "tuple": ()}.items()
    if asked & {int, float}:
        yield from {"inf": math.inf, "true": True, "zero": 0, "fractions": (2.5,), "nans": (math.nan,)}.items()
        yield from {"lone": torch.tensor(1.0), "several": torch.ones(4, 5)}.items()
    if asked & {Mapping, dict}:
        yield from {"numbers": {"label": 3}, "by number": {3: 3}}.items()
    if Mapping in asked:
        yield "other rows", {"label": torch.zeros(7)}
    if asked & {Sequence, tuple, str, bool}:
        yield from {"texts": ("x", "y"), "one": 1}.items()
    if any(map(is_tensor, asked)) or asked & {Any, Sequence}:
        x = right if isinstance(right, Tensor) else X
        real = x.float()
        yield from {"lone": torch.tensor(1.0), "none": x[:0], "fewer axes": real.flatten()[:3]}.items()
        yield from {"complex": x.to(torch.complex64), "sparse": real.to_sparse(), "meta": x.to("meta")}.items()
        yield from {
            "not finite": torch.full_like(real, math.nan),
            "whole": torch.ones_like(x, dtype=torch.long),
        }.items()


def passed(annotation: Any, value: Any) -> bool:
    """Whether a value that was taken cannot be one: no number, rounded, or of no kind that is asked for."""
    asked = set(kinds(annotation))
    if Any in asked:
        return False
    if isinstance(value, Tensor) and any(map(is_tensor, asked)):
        return value.is_complex() or value.is_sparse or value.is_meta or bool(value.isnan().any())
    if isinstance(value, tuple) and value and asked & {int, float}:
        value = value[0]
    if isinstance(value, float) and asked & {int, float}:
        return not math.isfinite(value) or (float not in asked and not value.is_integer())
    return type(value) is object


def called(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Calls with all arguments by name, but for those that may be several."""
    several, named = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in arguments:
            continue
        value = arguments[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            several = [*named.values(), *(value if isinstance(value, tuple) else (value,))]
            named = {}
        elif parameter.kind is parameter.VAR_KEYWORD:
            named |= value if set(map(type, value if isinstance(value, dict) else ())) == {str} else {"z": value}
        else:
            named[name] = value
    function(*several, **named)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROWS)
def test_no_wrong_argument_is_a_raw_error_or_passes_in_silence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        subo.plot, "_axes", lambda ax, figsize: ax or Figure(figsize=figsize).subplots()
    )  # none is kept
    function, right = ROWS[name]()
    called(function, right)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.annotation is Any and parameter.name in ("args", "kwargs", "options"):  # of any name
            continue
        for label, value in wrong(parameter.annotation, right.get(parameter.name)):
            if value is parameter.default or (name in STEPS | WITH_GAPS and label == "not finite"):
                continue
            case = f"{name}({parameter.name}: {label})"
            try:
                called(function, right | {parameter.name: value})
            except (InputError, DivergedError):
                continue
            except Exception as error:
                if any(note.startswith("This came from the ") for note in getattr(error, "__notes__", ())):
                    continue  # an error in a part, which names it and its inputs
                found.append(f"{case}: {type(error).__name__} {str(error).splitlines()[:1]}")
            else:
                if passed(parameter.annotation, value) and name not in STEPS and (name, parameter.name) not in INFINITE:
                    found.append(f"{case} was taken")
    assert not found, "\n".join(found)

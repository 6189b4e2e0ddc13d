"""Every option and argument has a range in which it makes sense, and what is outside is refused with the facts."""

import contextlib
import inspect
import math
import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, get_args, get_origin

import numpy as np
import pytest
import torch

import subo
from assertions import assert_refused
from command_line import assert_refused as refused
from subo.cli.app import command_of, make_app
from subo.cli.compare import compare
from subo.cli.encode import encode
from subo.cli.evaluate import evaluate
from subo.cli.forecast import forecast
from subo.cli.gradients import gradients
from subo.cli.options import fit_signature
from subo.cli.reconstruct import reconstruct
from subo.cli.sample import sample
from subo.cli.score import score
from subo.data.splits import Split
from subo.errors import InputError
from subo.recipes import RECIPES, vae
from subo.runtime.arguments import accepted, checked_arguments, owner_of
from subo.runtime.limits import LIMITS, limit_of
from subo.runtime.room import bytes_saved, counted_memory
from subo.training.checks import check_step
from subo.training.fitting import fit
from subo.training.loop import Schedule

COMMANDS = (evaluate, compare, gradients, sample, reconstruct, encode, score, forecast)
RECORDS = {"Draw", "Factor", "Inferred", "Interrupted", "Loss", "MarkovDistribution"}
"""What the library makes: nobody gives their numbers."""


def holds_number(kind: Any) -> bool:
    return kind in (int, float) or (get_origin(kind) is not Callable and any(map(holds_number, get_args(kind))))


def numbers() -> Iterator[tuple[str, str]]:
    """All numbers that can be given: the function's, or class's, name and theirs."""
    signatures = [("fit", fit_signature(recipe)) for recipe in RECIPES]
    signatures += [(command.__name__, inspect.signature(command)) for command in COMMANDS]
    for name in set(subo.__all__) - RECORDS:
        function = getattr(subo, name)
        if not (isinstance(function, type) and issubclass(function, Exception)):
            signatures.append((name, inspect.signature(function)))
    for owner, signature in signatures:
        for parameter in signature.parameters.values():
            if holds_number(parameter.annotation):
                yield owner, parameter.name


OF_SCIKIT_LEARN = {("VariationalAutoencoder", "verbose"), ("VariationalAutoencoder", "random_state")}


@pytest.mark.parametrize("owner, name", sorted(set(numbers()) - OF_SCIKIT_LEARN))
def test_every_number_has_a_stated_range(owner: str, name: str):
    limit = limit_of(name, owner)
    assert limit is not None, f"state the range of {name} in subo/limits.py"
    assert not limit.holds(math.nan)
    assert limit.holds(math.inf) == ((owner, name) in (("Renyi", "alpha"), ("pooled", "complete_degrees")))


def test_a_range_is_stated_of_what_exists():
    names = {name for _, name in numbers()}
    elsewhere = {
        "calibration_data",
        "elbo",
        "gap_steps",
        "gradient",
        "kl_warmup",
        "look_every",
        "max_steps",
        "model_steps",
        "objective",
    }
    elsewhere |= {"n_samples", "warmup", "window"}
    elsewhere |= {"elbo_samples", "leapfrog_steps"}  # of what measures a fitted model
    elsewhere |= {"columns", "kl_weight", "mean", "rows", "weight"}  # of methods
    elsewhere |= {"examples", "pseudo_inputs", "start"}  # of tensors
    assert {name.split(".")[-1] for name in LIMITS} <= names | elsewhere


@pytest.mark.parametrize(
    "name, value, kind, facts",
    [
        ("dropout", 1.0, float, "dropout must be below 1, not 1.0"),
        ("dropout", -0.5, float, "dropout must be at least 0, not -0.5"),
        ("clip", math.inf, float | None, "clip must be positive and finite, not inf. For no limit, leave it out"),
        ("beta", math.nan, float, "not nan. Usually an earlier calculation"),
        ("latent_dim", 2.5, int, "latent_dim must be a whole number, at least 1, not 2.5. Fractions are not rounded"),
        ("latent_dim", 10**12, int, "latent_dim must be at most 1,000,000, not 1000000000000"),
        ("latent_dim", True, int, "not True"),
        ("latent_dim", "3", int, "leave out the quotes"),
        ("hidden", "200", tuple[int, ...], "hidden must be whole numbers, at least 1, not '200'. It is text"),
        ("hidden", 200, tuple[int, ...], "For a single one write (200,)"),
        ("hidden", (200, 0), tuple[int, ...], "each at least 1, not (200, 0)"),
        ("hidden", [2.5], tuple[int, ...], "Fractions are not rounded"),
        ("hidden", (1,) * 2000, tuple[int, ...], "There are 2,000, and at most 1,000"),
        ("hidden", None, tuple[int, ...], "not None"),
    ],
)
def test_what_is_outside_is_refused_with_the_facts(name: str, value: Any, kind: Any, facts: str):
    with assert_refused(facts):
        accepted(name, value, kind)
    assert f"--{name.replace('_', '-')} must be" in refusal(name, value, kind)


def refusal(name: str, value: Any, kind: Any) -> str:
    """What the command line says."""
    try:
        accepted(name, value, kind, flag=True)
    except subo.InputError as error:
        return str(error)
    raise AssertionError(f"{name} = {value} was accepted")


def test_numbers_of_numpy_are_numbers():
    for given, kind, value in (
        (np.int64(3), int, 3),
        (np.uint8(3), int, 3),
        (np.array(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (np.int64(1), float, 1.0),
        (3, float, 3.0),
        ([np.int32(3), 4], tuple[int, ...], (3, 4)),
        (np.array([3, 4]), tuple[int, ...], (3, 4)),
        (np.bool_(True), bool, True),
    ):
        came = accepted("anything", given, kind)
        assert came == value
        assert type(came) is type(value)


def test_names_may_come_in_a_list():
    kind = str | tuple[str, ...]
    assert accepted("condition", ["a", "b"], kind) == accepted("condition", ("a", "b"), kind) == ("a", "b")
    with assert_refused("condition must be"):
        accepted("condition", ["a", 2], kind)


def test_what_isinstance_cannot_tell_is_taken():
    class Named(Protocol):
        name: str

    for kind in (Any, Named):
        assert accepted("anything", 3, kind) == 3


def test_a_function_keeps_its_signature_and_its_own_complaints():
    @checked_arguments
    def made(dim: int, *event_shape: int, clip: float | None = None) -> Any:
        return dim, event_shape, clip

    assert str(inspect.signature(made)) == "(dim: int, *event_shape: int, clip: float | None = None) -> Any"
    function: Any = made
    assert function(np.int64(1), np.int64(2), 3, clip=1) == (1, (2, 3), 1.0)
    with pytest.raises(TypeError, match="dim"):
        function()
    with assert_refused("event_shape must be at least 1, not 0"):
        function(1, 2, 0)
    assert owner_of(subo.Poisson.__init__) == "Poisson"


@pytest.mark.parametrize("word, value", [("12", 12), ("1e3", 1000), ("2.0", 2), ("0x10", 16)])
def test_whole_numbers_of_the_command_line(word: str, value: int):
    _, bound, _ = make_app().parse_args(["fit", "digits", "--epochs", word], exit_on_error=False, print_error=False)
    assert bound.arguments["epochs"] == value


# All options of fit, at their extremes, as far as the first step

BAD = [math.nan, math.inf, -math.inf, -5, 2.5, 10**18, 10**12, 10**9, 0.0, 0]


def extreme(name: str, kind: Any) -> str:
    """The first of the bad values that an option takes, as a word; of one without numbers a word that it does not know.

    What it does not take is refused with its name.
    """
    if not holds_number(kind):
        return "nonsense"
    taken = []
    for value in BAD:
        with contextlib.suppress(InputError):
            taken.append(accepted(name, [value] if get_origin(get_args(kind)[0]) is tuple else value, kind, flag=True))
    assert all(isinstance(value, tuple) or math.isfinite(value) for value in taken), name
    return str(taken[0]).strip("(,)") if taken else "nan"


class Accepted(InputError):
    """Training would begin."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, small and old, a table, and sequences."""
    path = tmp_path_factory.mktemp("runs")
    shutil.copytree(sorted((Path(__file__).parents[1] / "runs-of-0.1").iterdir())[0], path / "run")
    x = np.random.default_rng(0).normal(size=(30, 5, 2))
    np.save(path / "table.npy", x[:, 0])
    np.savez(path / "sequences.npz", *x)
    return path


@pytest.fixture
def at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is accepted, and not begun."""

    @wraps(fit)
    def door(*args: Any, **options: Any) -> Any:
        def stop() -> None:
            raise Accepted("accepted")

        return fit(*args, **options | {"on_start": stop})

    monkeypatch.setattr("subo.experiments.fitting.fit", door)


def options_of(recipe: str) -> list[str]:
    """Its options, those that all recipes have with the first alone."""
    own = set(fit_signature(recipe).parameters) - {"data", "out", "recipe", "resume", "overwrite", "quiet"}
    return sorted(own if recipe == "vae" else own - set(fit_signature("vae").parameters))


@pytest.mark.usefixtures("at_the_door")
@pytest.mark.parametrize("recipe, option", [(recipe, option) for recipe in RECIPES for option in options_of(recipe)])
def test_no_value_of_an_option_is_a_defect(recipe: str, option: str, folder: Path, capsys: pytest.CaptureFixture):
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    data = folder / ("sequences.npz" if recipe == "deep-markov" else "table.npy")
    plain = ["fit", str(data), "--recipe", recipe, "--out", str(folder / "run"), "--overwrite", "--quiet"]
    plain += [f"--hidden={4}"] if option != "hidden" else []
    word = extreme(option, fit_signature(recipe).parameters[option].annotation)
    message = refused(capsys, *plain, f"--{option.replace('_', '-')}={word}")
    assert "should not happen" not in message
    assert before == {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}


def test_commands_refuse_numbers_before_they_open_a_run():
    for words, fact in (
        ("evaluate run --num-samples 1000000000", "--num-samples must be at most"),
        ("evaluate run --full --minutes nan", "--minutes must be a positive number, not nan"),
        ("evaluate run --full --temperatures 0", "--temperatures must be at least 1, not 0"),
        ("compare a b --max-data 1", "--max-data must be at least 2, not 1"),
        ("sample run --out s.npy -n 1000000000000", "--num must be at most"),
        ("forecast run data --steps 3 --out f.csv --coverage inf", "--coverage must be"),
        ("gradients run --draws 1e9", "--draws must be at most"),
        ("score run data --out s.csv --num-samples 2.5", "--num-samples: expected a whole number but got 2.5"),
        ("fit data --epochs ten", "--epochs: expected a whole number, such as 10, but got ten"),
        ("fit data --epochs 1x", "--epochs: expected a whole number, such as 10, but got 1x"),
        ("fit data --learning-rate fast", "--learning-rate: expected a number, such as 0.5, but got fast"),
        ("fit data --hidden 20 --hidden 30", "--hidden was given 2 times, 20 and 30"),
        ("fit data --processes 1000000000", "--processes must be at most"),
    ):
        with assert_refused(fact):
            command_of(words.split())


def test_a_model_that_memory_cannot_hold_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_rng_state()
    with assert_refused("training the model takes about 16,000."):  # 10^12 weights of 4 bytes, 4 times
        vae((8,), likelihood="bernoulli", hidden=(10**6, 10**6))
    assert torch.equal(torch.get_rng_state(), before)
    objective = vae((8,), likelihood="bernoulli", hidden=(50,), num_samples=1000)
    weights = [*objective.parameters(), *objective.buffers()]
    with bytes_saved(weights) as total:
        objective(torch.zeros(20, 8))
    monkeypatch.setattr("subo.runtime.memory.free_bytes", lambda: 0.5 * total[0])
    with assert_refused("a training step, with 1,000 samples of each of 20 examples", "`batch_size`"):
        check_step(objective, Split(torch.zeros(20, 8)), 100)
    monkeypatch.setattr("subo.runtime.memory.free_bytes", lambda: 2 * total[0])
    check_step(objective, Split(torch.zeros(20, 8)), 100)


@pytest.mark.parametrize("times, fits", [(3.9, False), (4.1, True)])
def test_weights_that_were_made_are_not_counted_as_taken_twice(times: float, fits: bool, monkeypatch: Any):
    """Memory falls by what is made, and a model that is trained needs four times its weights of what there was."""
    taken, make = [0], torch.empty

    def empty(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = make(*args, **kwargs)
        taken[0] += made.nbytes
        return made

    size = 4 * sum(weight.numel() for layer in layers() for weight in layer.parameters())
    monkeypatch.setattr("subo.runtime.room.free_bytes", lambda: int(times * size) - taken[0])
    monkeypatch.setattr("subo.runtime.memory.free_bytes", lambda: int(times * size) - taken[0])
    monkeypatch.setattr("torch.nn.modules.linear.torch.empty", empty)
    with contextlib.nullcontext() if fits else assert_refused("training the model takes about"), counted_memory():
        layers()


def layers() -> list[torch.nn.Module]:
    """Weights of equal sizes."""
    return [torch.nn.Linear(100, 100) for _ in range(10)]


PCA = subo.probabilistic_pca(5, 2)
ROWS = torch.zeros(20, 5)


@pytest.mark.parametrize("what", ["fit", "evaluate", "compare"])
@pytest.mark.parametrize(
    "data, facts",
    [
        (ROWS.to_sparse(), "to_dense"),
        (ROWS.to(torch.complex64), "complex"),
        (ROWS[:0], "at least one"),
        (torch.tensor(1.0), "at least one"),
        (ROWS.to("meta"), "holds no numbers"),
        (ROWS.tolist(), "tensor"),
        (None, "NoneType"),
    ],
    ids=["sparse", "complex", "empty", "number", "meta", "list", "none"],
)
def test_what_is_no_data_is_refused(what: str, data: Any, facts: str):
    untyped: Any = subo
    with assert_refused(facts):
        if what == "fit":
            untyped.fit(subo.Objective(PCA), data, epochs=1)
        elif what == "evaluate":
            untyped.evaluate(PCA, data, num_samples=5)
        else:
            untyped.compare({"a": PCA, "b": PCA}, data, num_samples=5)


def test_what_makes_no_bound_and_no_optimizer_is_refused():
    untyped: Any = subo
    for make, fact in (
        (lambda: untyped.ELBO(beta=math.nan), "beta must be a number, at least 0, not nan"),
        (lambda: untyped.ELBO(free_bits="1"), "free_bits must be"),
        (lambda: untyped.ELBO(closed_form_kl=3), "closed_form_kl must be True or False"),
        (lambda: untyped.Renyi("x"), "alpha must be a number"),
        (lambda: untyped.MIWAE(groups=2.5), "Fractions are not rounded"),
    ):
        with assert_refused(fact):
            make()
    foreign = torch.optim.Adam(torch.nn.Linear(2, 2).parameters())
    objective = subo.Objective(PCA)
    with assert_refused("2 of the optimizer's 2 tensors", "objective.parameters()"):
        subo.fit(objective, ROWS, epochs=1, optimizer=foreign)
    with assert_refused("2 of the optimizer's 2 tensors"):
        next(iter(subo.train(objective, [ROWS], steps=1, optimizer=foreign)))


@pytest.mark.parametrize(
    "data, of_training, of_log_marginal",
    [
        (ROWS.to_sparse(), "to_dense", "to_dense"),
        (ROWS.to(torch.complex64), "complex", "complex"),
        (ROWS[:0], "It holds no numbers", "It holds no numbers"),
        (torch.tensor(1.0), "received a tensor of shape ()", "For a single one write x[None]"),
        (ROWS.to("meta"), "holds no numbers", "holds no numbers"),
        (ROWS[:, 0], "the model describes data of shape (5,)", "the model describes data of shape (5,)"),
        (ROWS * math.nan, "NaN", "NaN"),
    ],
    ids=["sparse", "complex", "empty", "number", "meta", "vector", "nan"],
)
@pytest.mark.parametrize("what", ["train", "log_marginal"])
def test_a_batch_that_is_none_is_refused(what: str, data: torch.Tensor, of_training: str, of_log_marginal: str):
    with assert_refused(of_training if what == "train" else of_log_marginal):
        if what == "train":
            next(iter(subo.train(subo.Objective(subo.probabilistic_pca(5, 2)), [data], steps=1)))
        else:
            subo.log_marginal(PCA, data, num_samples=5)


def test_data_of_another_precision_are_read_in_the_models():
    x = torch.randn(4, 5)
    torch.manual_seed(0)
    plain = subo.log_marginal(PCA, x, num_samples=5).log_px
    torch.manual_seed(0)
    assert torch.equal(plain, subo.log_marginal(PCA, x.double(), num_samples=5).log_px)


def test_other_wrong_arguments_are_refused():
    untyped: Any = subo
    objective = subo.Objective(subo.probabilistic_pca(5, 2))
    for make, fact in (
        (lambda: untyped.fit(objective, ROWS[:, 0], epochs=1), "describes data of shape (5,)"),
        (lambda: untyped.fit(objective, ROWS, epochs=1, fabric="x"), "fabric must be a lightning_fabric.Fabric"),
        (lambda: vae((5,), likelihood="gaussian", examples=ROWS[:0]), "examples must be a dense tensor"),
        (lambda: untyped.Stack(3), "networks must be a Module, not 3"),
        (lambda: untyped.Gaussian((2,), unit=torch.zeros(2)), "unit must be positive everywhere"),
        (lambda: Schedule(warmup=-1), "warmup must be at least 0, not -1"),
    ):
        with assert_refused(fact):
            make()


def test_what_a_step_calls_is_checked_where_it_fails():
    untyped: Any = subo.Objective(PCA)
    for make, fact in (
        (lambda: untyped(ROWS.numpy()), "x must be a dense tensor (B ...) of real numbers"),
        (lambda: untyped(ROWS, {"label": 3}), "context must be a dict"),
        (lambda: untyped.model.draw(ROWS, num_samples=2.5), "Fractions are not rounded"),
        (lambda: untyped.model.log_joint(ROWS, torch.zeros(2)), "latents are (K, B, ...)"),
        (lambda: untyped.model.log_joint(ROWS, torch.zeros(1, 20, 2).double()), "z of float64"),
    ):
        with assert_refused(fact):
            make()


def test_an_error_of_a_users_own_passes_as_it_is():
    def bound(draw: subo.Draw) -> torch.Tensor:
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        subo.Objective(PCA, bound)(ROWS)


def test_a_name_that_is_no_parameter_is_told_the_nearest():
    untyped: Any = subo
    with pytest.raises(TypeError, match="fit has no parameter epoch: did you mean epochs?"):
        untyped.fit(subo.Objective(PCA), ROWS, epoch=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'color'"):
        untyped.Gaussian((2,), color=1)


def test_all_numbers_of_a_tensor_are_in_its_range():
    for make, fact in (
        (lambda: subo.Gaussian((2,), center=torch.tensor([0, math.nan])), "center must be finite everywhere"),
        (lambda: subo.Gaussian((2,), unit=torch.tensor([1.0, -2.0])), "It holds -2."),
        (lambda: subo.Poisson((5,)).params_of_mean(ROWS * math.inf), "mean must be finite everywhere"),
        (lambda: subo.LinearGaussianStateSpace(2, 2).log_px(torch.full((1, 3, 2), math.inf)), "sequence 1 of 1 holds"),
    ):
        with assert_refused(fact):
            make()


@pytest.mark.filterwarnings("ignore")
def test_arrays_that_run_backwards_are_data():
    x = np.random.default_rng(0).normal(size=(30, 3))[::-1, ::-1]
    fitted = subo.VariationalAutoencoder(epochs=1, hidden=(4,), random_state=0).fit(x)
    copied = subo.VariationalAutoencoder(epochs=1, hidden=(4,), random_state=0).fit(x.copy())
    assert np.array_equal(fitted.transform(x), copied.transform(x.copy()))

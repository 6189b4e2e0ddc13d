"""The page's own encoder, decoder, densities and draws are those of torch, for every part that is exported."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from browser import browser
from torch import Size, Tensor, nn
from torch.distributions import Distribution
from torch.testing import assert_close

import subo
from subo import Split
from subo.explorer.examples import chosen, packed_examples
from subo.explorer.heads import head
from subo.explorer.model import exported
from subo.explorer.operations import NotExportedError, Store, operations
from subo.explorer.page import MODULES, script
from subo.models.vae import VAE
from subo.parts.cells import Cells
from subo.parts.columns import Columns
from subo.parts.networks import Standardize

SUMMED: dict[str, Any] = {
    "rtol": 2e-3,
    "atol": 1e-3,
}  # the kernels of conv are sums of weights, which are rounded to half precision again
EXACT: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
IN_UNITS: dict[str, Any] = {"center": torch.tensor([1e5, -2.0, 0.0]), "unit": torch.tensor([30.0, 0.1, 2.0])}
COLUMNS = ("real", "category 3", "count", "spike", "ordinal 4", "positive", "boolean 2")


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with browser() as opened:
        empty = opened.new_page()
        empty.set_content("<p>modules</p>")
        empty.add_script_tag(
            content=script(MODULES[: MODULES.index("space.js")]).replace("const modules", "globalThis.modules")
        )
        yield empty


def halved(model: VAE) -> VAE:
    """The model with weights that half precision holds exactly, so that the page has the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + 0.3 * torch.randn_like(parameter)).half().float())
    return model.eval()


def as_json(value: Tensor) -> list[float | str | None]:
    """Numbers for the page, where JSON has no NaN and no infinity."""
    return [None if math.isnan(v) else "inf" if v == math.inf else v for v in value.flatten().tolist()]


def in_page(page: Any, model: VAE, shape: Size, code: str, *values: Any) -> Any:
    """The value of an expression of the page's `model` and of arguments."""
    latents = model.posterior.family.event_shape.numel()
    record = {"model": exported(model, shape), "atlas": None, "examples": {"latents": {"names": [""] * latents}}}
    given = [as_json(value) if isinstance(value, Tensor) else value for value in values]
    return page.evaluate(
        """([record, values, code]) => {
            const model = new modules["model.js"].Model(record);
            const number = (v) => (v === null ? NaN : v === "inf" ? Infinity : v);
            const args = values.map((value) => Array.isArray(value) ? Float32Array.from(value, number) : value);
            const plain = (v) => ArrayBuffer.isView(v) ? Array.from(v, (x) => (x === Infinity ? "inf" : x)) : v;
            return plain(new Function("model", "args", "modules", `return ${code}`)(model, args, modules));
        }""",
        [json.loads(json.dumps(record)), given, code],
    )


def made(likelihood: Any, *, latent: int = 2, network: Any = None, encoder: Any = None, prior: Any = None) -> VAE:
    size = likelihood.event_shape.numel()
    decoder = network or subo.mlp(latent, likelihood.num_params, hidden=(8,))
    encoder = encoder or subo.mlp(size, 2 * latent, hidden=(8,))
    return halved(
        VAE(
            prior or subo.StandardNormal(latent),
            subo.Conditional(likelihood, decoder),
            subo.Conditional(subo.Gaussian((latent,)), encoder),
        )
    )


FAMILIES = {
    "bernoulli": subo.Bernoulli((3,)),
    "continuous-bernoulli": subo.ContinuousBernoulli((3,)),
    "poisson": subo.Poisson((3,)),
    "negative-binomial": subo.NegativeBinomial((3,), dispersion="network"),
    "negative-binomial-shared": subo.NegativeBinomial((3,), dispersion="shared"),
    "zero-inflated": subo.ZeroInflatedNegativeBinomial((3,), dispersion="network"),
    "zero-inflated-shared": subo.ZeroInflatedNegativeBinomial((3,), dispersion="shared"),
    "categorical": subo.Categorical((3,), num_classes=(2, 4, 3)),
    "gaussian": subo.Gaussian((3,), **IN_UNITS),
    "gaussian-fixed": subo.Gaussian((3,), 0.5),
    "laplace": subo.Laplace((3,), "per-dimension", **IN_UNITS),
    "student-t": subo.StudentT((3,), degrees_of_freedom="per-dimension", **IN_UNITS),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_means_and_densities_are_torchs(page: Any, name: str):
    model = made(FAMILIES[name])
    z = torch.tensor([0.7, -1.2])
    with torch.no_grad():
        p = model.decode(z.unsqueeze(0))
        x = p.sample()
        expected, log_prob = p.mean[0].double(), p.log_prob(x).double()
    mean = torch.tensor(in_page(page, model, Size([3]), "model.mean(args[0], {})", z), dtype=torch.float64)
    assert_close(mean, expected, rtol=2e-5, atol=2e-5)
    found = in_page(page, model, Size([3]), "model.logLikelihood(args[1], args[0], {})", z, x[0])
    assert found == pytest.approx(log_prob.item(), rel=1e-4, abs=1e-4)


def test_a_likelihood_that_describes_which_cells_are_missing_is_not_exported():
    family = Columns((1,), columns=("real",), missing_model="self")
    with pytest.raises(NotExportedError, match="which cells are missing"):
        head(family, Store())


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_have_the_familys_moments(page: Any, name: str):
    model = made(FAMILIES[name])
    z, count = torch.tensor([0.3, 0.4]), 4000
    code = f"""(() => {{
        const random = new modules["numbers.js"].Random(3);
        const all = new Float64Array(9);
        for (let k = 0; k < {count}; k++) model.sample(args[0], {{}}, random).forEach((v, d) => {{
            all[d] += v / {count}; all[3 + d] += v * v / {count}; }});
        return all; }})()"""
    drawn = torch.tensor(in_page(page, model, Size([3]), code, z), dtype=torch.float64)
    with torch.no_grad():
        p = model.decode(z.unsqueeze(0))
        mean, deviation = p.mean[0].double(), p.variance[0].double().sqrt()
    assert bool(((drawn[:3] - mean).abs() < 5 * deviation / math.sqrt(count)).all())


@pytest.mark.parametrize("scaled", [False, True])
def test_cells_of_every_kind_are_torchs(page: Any, scaled: bool):
    torch.manual_seed(1)
    columns = ("real 4", *COLUMNS[1:]) if scaled else COLUMNS
    family = Columns((7,), columns=columns, scale="network", degrees_of_freedom="shared", dispersion="network")
    slope = torch.tensor([0.0, 0, 0, 0.4, 0, 1.0, 0])
    units = {"shift": torch.randn(7), "slope": slope, "unseen": torch.full((7,), 0.01)}
    if scaled:
        identity = torch.arange(4.0).repeat(7, 1)
        knots, scores = identity.clone(), identity.clone()
        knots[0], scores[0] = torch.tensor([-1.0, 0.0, 0.4, 5.0]), torch.tensor([-2.0, 0.1, 0.6, 1.2])
        units |= {"knots": knots, "scores": scores}
    family.set_units(**units)
    examples = torch.tensor(
        [[0.5, 2, 7, math.inf, 1, 0.2, 1], [math.nan, 0, 3, 0.4, 3, -1, 0], [1.5, 1, 0, 0.1, 0, 2, 0]]
    )
    cells = Cells(COLUMNS, examples, reach=0.5)
    network = nn.Sequential(cells, subo.mlp(cells.out_features, 4, hidden=(8,)))
    model = made(family, encoder=network)
    unseen, far = [math.nan, 3, math.nan, math.nan, 4, math.nan, 0], [-9, 2, 40, 7, 1, 8, 1]
    rows = torch.cat([examples, torch.tensor([unseen, far])])
    z = torch.tensor([0.7, -1.2])
    for x in rows:
        with torch.no_grad():
            p = model.decode(z.unsqueeze(0))
            log_prob, q = p.log_prob(x.unsqueeze(0)).item(), model.posterior(x.unsqueeze(0))
        found = in_page(page, model, Size([7]), "model.logLikelihood(args[1], args[0], {})", z, x)
        assert found == pytest.approx(log_prob, rel=1e-4)
        encoded = in_page(page, model, Size([7]), "model.encode(args[0], {}).mean", x)
        assert_close(torch.tensor(encoded), q.mean[0], rtol=1e-4, atol=1e-5)
    mean = in_page(page, model, Size([7]), "model.mean(args[0], {})", z)
    assert [math.inf if v == "inf" else v for v in mean] == pytest.approx(p.mean[0].tolist(), rel=1e-4, abs=1e-5)


def test_numbers_beyond_the_range_of_the_training_rows_are_torchs(page: Any):
    limits = torch.tensor([-1.0, -math.inf, 0.5]), torch.tensor([2.0, 0.1, math.inf])
    entry = Standardize(torch.randn(3), torch.rand(3) + 0.5, within=limits)
    model = made(subo.Gaussian((3,)), encoder=nn.Sequential(entry, subo.mlp(3, 4, hidden=(8,))))
    for x in torch.tensor([[0.0, 0.0, 1.0], [1e9, 1e9, 1e9], [-5.0, -5.0, -5.0]]):
        found = in_page(page, model, Size([3]), "model.encode(args[0], {}).mean", x)
        assert_close(torch.tensor(found), model.posterior(x.unsqueeze(0)).mean[0].detach(), rtol=1e-4, atol=1e-5)


def of_all_activations() -> nn.Sequential:
    activations = (nn.GELU(), nn.ELU(), nn.LeakyReLU(), nn.Softplus(beta=2), nn.Sigmoid(), nn.LayerNorm(6), nn.ReLU())
    layers = [layer for activation in activations for layer in (nn.Linear(6, 6), activation)]
    return nn.Sequential(nn.Linear(2, 6), *layers, nn.Dropout(), nn.Linear(6, 64))


def of_all_convolutions() -> nn.Sequential:
    up = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1)
    images = (nn.Conv2d(1, 3, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(3), nn.SiLU(), up, nn.GELU("tanh"))
    return nn.Sequential(*images, nn.Flatten(), nn.Linear(128, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))


NETWORKS = {
    "residual": lambda: (subo.residual_mlp(2, 64, hidden=(16, 16)), subo.residual_mlp(64, 4, hidden=(16, 16))),
    "conv": lambda: (
        subo.conv_decoder(2, (1, 8, 8), channels=(4, 6), hidden=9),
        subo.conv_encoder((1, 8, 8), 4, channels=(4, 6), hidden=9),
    ),
    "others": lambda: (of_all_activations(), of_all_convolutions()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_torchs(page: Any, name: str):
    decoder, encoder = NETWORKS[name]()
    for part in encoder.modules():  # statistics of a training
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            statistics: Any = part
            statistics.running_mean.normal_()
            statistics.running_var.uniform_(0.5, 2)
    model = made(subo.Bernoulli((1, 8, 8)), network=decoder, encoder=encoder)
    z, x = torch.tensor([0.7, -1.2]), torch.rand(1, 8, 8)
    with torch.no_grad():
        mean, q = model.decode(z.unsqueeze(0)).mean[0].flatten(), model.posterior(x.unsqueeze(0))
    found = in_page(page, model, Size([1, 8, 8]), "model.mean(args[0], {})", z)
    assert_close(torch.tensor(found), mean, **(SUMMED if name == "conv" else EXACT))
    found = in_page(page, model, Size([1, 8, 8]), "model.encode(args[0], {}).mean", x)
    assert_close(torch.tensor(found), q.mean[0], rtol=1e-4, atol=1e-5)
    found = in_page(page, model, Size([1, 8, 8]), "model.encode(args[0], {}).factor", x)
    assert_close(torch.tensor(found), q.base_dist.scale[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_class_that_a_decoder_is_given_counts(page: Any, network: str):
    x, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
    data = subo.Split(x, labels=labels)
    options = {"condition": "labels", "latent_dim": 2, "network": network, "likelihood": "continuous-bernoulli"}
    objective = subo.make("vae", data, **options)
    model = halved(objective.model)
    z = torch.tensor([0.7, -1.2])
    for label in range(3):
        with torch.no_grad():
            context = {"label": torch.tensor([label])}
            mean, q = model.decode(z.unsqueeze(0), context).mean[0].flatten(), model.posterior(x[:1], **context)
            log_prior = model.prior(**context).log_prob(z).item()
        found = in_page(page, model, Size([1, 8, 8]), f"model.mean(args[0], {{label: {label}}})", z)
        assert_close(torch.tensor(found), mean, **(SUMMED if network == "conv" else EXACT))
        found = in_page(page, model, Size([1, 8, 8]), f"model.encode(args[0], {{label: {label}}}).mean", x[0])
        assert_close(torch.tensor(found), q.mean[0], rtol=1e-4, atol=1e-5)
        found = in_page(page, model, Size([1, 8, 8]), f"model.prior({{label: {label}}}).logProb(args[0])", z)
        assert found == pytest.approx(log_prior, rel=1e-5)


@pytest.mark.parametrize("likelihood", ["negative-binomial", "zero-inflated-negative-binomial"])
def test_the_size_of_a_row_multiplies_its_means(page: Any, likelihood: str):
    x = torch.distributions.Poisson(torch.rand(30, 4) * 9).sample()
    data = subo.Split(x, context={"size": x.sum(1) / x.sum(1).mean()})
    objective = subo.make("vae", data, size_factor="observed", latent_dim=2, likelihood=likelihood)
    model, z, size = halved(objective.model), torch.tensor([0.7, -1.2]), 2.5
    with torch.no_grad():
        context = {"size": torch.tensor([size])}
        p, q = model.decode(z.unsqueeze(0), context), model.posterior(x[:1], **context)
    found = in_page(page, model, Size([4]), f"model.mean(args[0], {{size: {size}}})", z)
    assert_close(torch.tensor(found), p.mean[0], **EXACT)
    found = in_page(page, model, Size([4]), f"model.encode(args[0], {{size: {size}}}).mean", x[0])
    assert_close(torch.tensor(found), q.mean[0], **EXACT)


PRIORS = {
    "normal": subo.StandardNormal(2),
    "mixture": subo.GaussianMixture(2, components=3),
    "full": subo.GaussianMixture(2, components=3, covariance="full"),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors_are_torchs(page: Any, name: str):
    model = made(FAMILIES["bernoulli"], prior=PRIORS[name])
    z = torch.tensor([0.7, -1.2])
    found = in_page(page, model, Size([3]), "model.prior({}).logProb(args[0])", z)
    with torch.no_grad():
        assert found == pytest.approx(model.prior().log_prob(z).item(), rel=1e-5)


@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_the_exact_posterior_and_log_px_are_those_of_a_linear_model(page: Any, scale: float):
    """x = W z + b + noise: p(x) and p(z|x) are normal."""
    model = made(subo.Gaussian((3,), scale), network=nn.Linear(2, 3))
    weight, bias = model.likelihood.network.weight.detach().double(), model.likelihood.network.bias.detach().double()
    x = torch.tensor([0.4, -0.2, 1.0])
    covariance = weight @ weight.T + scale**2 * torch.eye(3, dtype=torch.float64)
    log_px = torch.distributions.MultivariateNormal(bias, covariance).log_prob(x.double()).item()
    code = """(() => { const found = modules["posterior.js"].exactPosterior(model, args[0], {});
        let [mass, mean] = [0, [0, 0]];
        found.logPosterior.forEach((v, at) => { const w = Math.exp(v + found.logArea); mass += w;
            [at % found.side, Math.floor(at / found.side)].forEach((k, d) =>
                (mean[d] += w * (found.low[d] + k * (found.high[d] - found.low[d]) / (found.side - 1)))); });
        return [found.logPx, mass, ...mean]; })()"""
    found, mass, *mean = in_page(page, model, Size([3]), code, x)
    precision = weight.T @ weight / scale**2 + torch.eye(2, dtype=torch.float64)
    expected = torch.linalg.solve(precision, weight.T @ (x.double() - bias) / scale**2)
    assert found == pytest.approx(log_px, abs=2e-3)
    assert mass == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(mean, expected.numpy(), atol=2e-3)


def test_a_q_that_is_optimized_in_the_page_becomes_the_best_of_its_family(page: Any):
    """For a linear model the best factorized q has the exact mean, and the inverse of the precision's diagonal."""
    model = made(subo.Gaussian((3,), 0.5), network=nn.Linear(2, 3))
    weight, bias = model.likelihood.network.weight.detach().double(), model.likelihood.network.bias.detach().double()
    x = torch.tensor([0.4, -0.2, 1.0])
    precision = weight.T @ weight / 0.25 + torch.eye(2, dtype=torch.float64)
    mean = torch.linalg.solve(precision, weight.T @ (x.double() - bias) / 0.25)
    code = """(() => { const { Ascent } = modules["posterior.js"];
        const ascent = new Ascent(model, args[0], {}, model.encode(args[0], {}), { samples: 16 });
        for (let k = 0; k < 800; k++) { ascent.rate = 0.05 * (1 - k / 800); ascent.step(); }
        return [...ascent.q.mean, ...ascent.q.factor]; })()"""
    found = torch.tensor(in_page(page, model, Size([3]), code, x), dtype=torch.float64)
    assert_close(found[:2], mean, atol=0.03, rtol=0)
    assert_close(found[2:], precision.diagonal().rsqrt(), atol=0.02, rtol=0.05)


def test_log_px_of_ones_own_example_is_within_its_error(page: Any):
    model = made(subo.Gaussian((3,), 0.5), network=nn.Linear(2, 3))
    weight, bias = model.likelihood.network.weight.detach().double(), model.likelihood.network.bias.detach().double()
    x = torch.tensor([0.4, -0.2, 1.0])
    covariance = weight @ weight.T + 0.25 * torch.eye(3, dtype=torch.float64)
    log_px = torch.distributions.MultivariateNormal(bias, covariance).log_prob(x.double()).item()
    code = """(() => { const q = new modules["prior.js"].Normal([0, 0], [1, 1]);
        const { logMarginal } = modules["posterior.js"];
        return logMarginal(model, args[0], {}, q, new modules["numbers.js"].Random(1), 20000); })()"""
    found = in_page(page, model, Size([3]), code, x)
    assert 0 < found["error"] < 0.1
    assert abs(found["logPx"] - log_px) < 5 * found["error"]


class Own(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).sin()


def test_what_computes_something_of_its_own_is_not_exported():
    with pytest.raises(NotExportedError, match="Own has no counterpart"):
        operations(Own(2, 3), Size([2]), Store())


def test_a_prior_that_cannot_be_drawn_from_is_missing_without_draws():
    class Improper(nn.Module):
        def forward(self) -> Distribution:
            return Distribution(event_shape=torch.Size([2]), validate_args=False)

    found = exported(made(subo.Bernoulli((3,)), prior=Improper()), Size([3]))["prior"]
    assert "Distribution" in found["missing"]
    assert "draws" not in found


EXAMPLES = {
    "bits": Split((torch.rand(9, 1, 3, 5) < 0.5).to(torch.uint8)),
    "levels": Split(torch.arange(9 * 15).reshape(9, 1, 3, 5).to(torch.uint8) * 255 // 134, levels=255),
    "drawn": Split(torch.full((9, 1, 3, 5), 100, dtype=torch.uint8), levels=255, resample=True),
    "classes": Split(torch.randint(0, 9, (9, 1, 3, 5)).to(torch.uint8)),
    "numbers": Split(torch.randn(9, 15)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_torchs_however_they_are_packed(page: Any, name: str):
    few, _ = chosen(EXAMPLES[name], latents=2)
    x, _ = few.read(torch.arange(len(few)))
    record = packed_examples(x, few)
    found = page.evaluate("(record) => Array.from(modules['numbers.js'].unpack(record).values)", record)
    assert_close(torch.tensor(found).reshape(x.shape).float(), x, rtol=0, atol=0)
    assert record["type"] == {"bits": "bits", "drawn": "bits", "numbers": "f32"}.get(name, "u8")

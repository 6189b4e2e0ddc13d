"""The full evaluation: exact answers where they are known, pieces that survive a stop, and what is left out."""

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import catalog
from quadrature import exact_log_px, skewed_data, skewed_model
from shapes import unchecked_shapes
from subo import VAE, Conditional, Gaussian, InputError, Local, StandardNormal
from subo.data.splits import Split
from subo.evaluation.evidence.annealed import AnnealedEstimate
from subo.evaluation.evidence.bidirectional import Sandwich
from subo.evaluation.numbers import BITS, Number
from subo.evaluation.scores import Scores
from subo.models.probabilistic_pca import LinearGaussian
from subo.report.full import Depth, Findings, evaluate_fully
from subo.report.pieces import Parts
from subo.report.sentences import sentences
from subo.report.stages import Measured, Stage, measure_in_stages
from subo.runtime.digits import in_digits

SHALLOW = Depth(num_samples=100, intensive_data=4, temperatures=20, chains=8, gap_steps=50, calibration_data=100)


@pytest.fixture(autouse=True)
def short_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding lengths of step takes most of a short annealing, and is tested in test_annealed."""
    module = import_module("subo.evaluation.evidence.annealed")
    monkeypatch.setattr(module, "_PILOT", (10, 10))
    monkeypatch.setattr(module, "adapted", partial(module.adapted, settle=10))


def pca_model() -> VAE:
    """Probabilistic PCA with an encoder that is nearly right: its family is diagonal, its means are off."""
    likelihood = LinearGaussian(5, 2)
    with torch.no_grad():
        likelihood.weight.copy_(torch.linspace(-0.8, 1, 5)[:, None] + 0.4 * torch.randn(5, 2))
        likelihood.log_scale.fill_(-0.3)
        precision, factor = likelihood.precision(), (-2 * likelihood.log_scale).exp()
        network = nn.Linear(5, 4)
        network.weight.zero_()
        network.weight[:2] = torch.linalg.solve(precision, likelihood.weight.T) * factor
        network.bias.zero_()
        network.bias[:2] = 0.1
        # the family's softplus of the raw scale, inverted, for standard deviations 1 / sqrt(P_ii)
        family, scales = Gaussian((2,)), precision.diagonal().rsqrt()
        raw = torch.linspace(-6, 6, 100_001)
        stddev = family(torch.cat([torch.zeros(len(raw), 2), raw[:, None].expand(-1, 2)], 1)).stddev[:, 0]
        network.bias[2:] = raw[torch.searchsorted(stddev.contiguous(), scales.contiguous())]
    return VAE(StandardNormal(2), likelihood, Conditional(Gaussian((2,)), network))


def line(table: tuple[Number, ...], name: str, estimator: str = "") -> Number:
    return next(n for n in table if n.name.strip() == name and estimator in n.estimator)


def test_on_probabilistic_pca_every_number_is_the_exact_one():
    model = pca_model()
    likelihood: Any = model.likelihood
    with torch.no_grad():
        x = model.sample(40)[1].sample()
        truth = likelihood.log_px(x).double()
        precision = likelihood.precision().double()
    findings = evaluate_fully(model, Split(x), depth=SHALLOW)
    assert findings.complete
    table = findings.numbers()
    sampled = line(table, "log p(x)", "importance")
    assert sampled.num_data == 40
    assert sampled.num_samples == 100
    paired = findings.column("importance", "log_px", 40) - truth
    assert paired.mean().abs() < 5 * findings.column("importance", "standard_error", 40).square().mean().sqrt()
    rows = findings.measured["annealed"].rows
    annealed, error = (findings.column("annealed", name, 40)[rows] for name in ("log_px", "standard_error"))
    assert ((annealed - truth[rows]).abs() < 5 * error).all()
    exact = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    found = findings.gaps
    assert found is not None
    noise = 5 * (found.log_px_se.square() + found.elbo_best_se.square()).sqrt() + 5e-3
    assert ((found.approximation - exact).abs() < noise).all()
    # means off by 0.1 in each: KL between normals of the same diagonal covariance, plus the best q's own
    shift = 0.5 * 0.1**2 * precision.sum()
    assert (found.amortization.mean() - shift).abs() < 5 * found.elbo_se.square().mean().sqrt() + 5e-3
    gap = line(table, "inference gap, log p(x) - ELBO")
    parts = [line(table, name).value for name in ("approximation gap", "amortization gap")]
    assert gap.value == pytest.approx(sum(parts), abs=1e-9)
    width = line(table, "width of this bracket")
    assert width.standard_error is not None
    assert -5 * width.standard_error < width.value < 2
    sums = [line(table, name).value for name in ("mutual information I(x; z)", "marginal KL(q(z) || p(z))")]
    assert line(table, "their sum, the rate by these samples").value == pytest.approx(sum(sums), abs=1e-9)
    assert not any(number.name == BITS for number in table)
    assert not any("Left out" in sentence for sentence in sentences(findings))


@pytest.mark.slow
def test_skewed_posteriors_are_measured_right():
    model, x = skewed_model(), skewed_data(12)
    depth = Depth(num_samples=5000, intensive_data=2, temperatures=20, gap_steps=50, calibration_data=100)
    findings = evaluate_fully(model, Split(x), depth=depth)
    found = findings.column("importance", "log_px", 12) - exact_log_px(model, x)
    assert (found.abs() < 5 * findings.column("importance", "standard_error", 12)).all()
    table = findings.numbers(num_elements=4)
    assert line(table, BITS).unit == "bits"
    assert line(table, BITS).value == pytest.approx(-line(table, "log p(x)").value / (4 * 0.6931471805599453))


@unchecked_shapes()
@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_and_ends_with_the_same_numbers(tmp_path: Path):
    model, data = pca_model(), Split(torch.randn(210, 5))
    whole = evaluate_fully(model, data, depth=SHALLOW)
    calls, findings = 0, None
    while findings is None or not findings.complete:
        findings = evaluate_fully(model, data, depth=SHALLOW, folder=tmp_path / "pieces", minutes=1e-9)
        calls += 1
        assert calls < 40
    assert calls >= 8, "a call without time makes one piece"
    for name, stage in whole.measured.items():
        other = findings.measured[name]
        assert torch.equal(stage.rows, other.rows)
        parts, others = Parts.of(stage.record), Parts.of(other.record)
        assert parts.values == others.values
        assert parts.tensors.keys() == others.tensors.keys()
        for key, values in parts.tensors.items():
            assert torch.equal(values, others.tensors[key]), (name, key)


def test_progress_is_seen_of_few_data():
    steps: list[int] = []
    depth = Depth(num_samples=20, intensive_data=2, temperatures=2, gap_steps=10, calibration_data=100)

    def advance(title: str, count: int) -> None:
        if "importance" in title:
            steps.append(count)

    evaluate_fully(pca_model(), Split(torch.randn(40, 5)), depth=depth, minutes=1e-9, advance=advance)
    assert steps == [4], "a tenth of the data is a piece"


@dataclass(frozen=True)
class Found:
    """What a stage may find."""

    value: Tensor
    whole: float = 1.0


def test_pieces_of_other_weights_are_thrown_away_and_of_other_settings_not_taken(tmp_path: Path):
    calls = []

    def work(rows: Tensor, seed: int) -> Found:
        calls.append(seed)
        return Found(rows.double())

    def made(identity: str, seed: int, settings: int) -> int:
        calls.clear()
        stage = Stage("one", "one", Found, torch.arange(5).split(2), work, (settings,))
        found = measure_in_stages([stage], folder=tmp_path / "kept", identity=identity, seed=seed)["one"]
        assert found.complete
        assert found.record.value.tolist() == [0, 1, 2, 3, 4]
        assert found.record.whole == 1.0
        assert len(calls) == len(set(calls)), "pieces have random numbers of their own"
        return len(calls)

    assert made("a", 0, 7) == 3
    assert made("a", 0, 7) == 0
    assert made("a", 0, 8) == 3
    assert made("a", 1, 8) == 3
    assert made("a", 0, 7) == 0, "what was measured with the first settings is still there"
    assert made("b", 0, 7) == 3
    assert made("a", 0, 7) == 3


def test_a_stage_that_must_be_made_raises_and_another_says_why_not():
    def refuse(rows: Tensor, seed: int) -> Found:
        raise InputError("not of this model")

    def fail(rows: Tensor, seed: int) -> Found:
        raise ValueError("something of torch's")

    stage = Stage("one", "one", Found, [torch.arange(2)], fail)
    assert "ValueError: something" in measure_in_stages([stage])["one"].refused
    stage = Stage("one", "one", Found, [torch.arange(2)], refuse)
    assert measure_in_stages([stage])["one"].refused == "not of this model"
    assert measure_in_stages([stage])["one"].complete
    with pytest.raises(InputError, match="not of this model"):
        measure_in_stages([Stage("one", "one", Found, [torch.arange(2)], refuse, optional=False)])


def test_discrete_latents_get_a_bracket_by_importance_sampling_and_a_reason_for_what_is_left_out():
    model: Any = catalog.bits_vae()
    findings = evaluate_fully(model, Split(torch.randint(2, (12, 6)).float()), depth=SHALLOW)
    assert findings.bracket == "importance"
    assert findings.values("bracket", "upper") is not None
    assert "discrete" in findings.measured["annealed"].refused
    best = findings.gaps
    assert best is not None
    assert (best.amortization > -5 * (best.elbo_se.square() + best.elbo_best_se.square()).sqrt()).all()
    assert findings.complete
    assert any(said.startswith("Left out, annealed") for said in sentences(findings))


@unchecked_shapes()
@pytest.mark.slow
def test_a_model_of_ones_own_and_a_posterior_of_rows_are_served():
    class Alone:
        def __init__(self, model: VAE):
            self.draw, self.log_joint, self.sample = model.draw, model.log_joint, model.sample

    own: Any = Alone(pca_model())
    findings = evaluate_fully(own, Split(torch.randn(8, 5)), depth=SHALLOW)
    assert findings.values("annealed", "log_px") is not None
    assert findings.measured["gaps"].refused
    pca = pca_model()
    posterior = Local(Gaussian((2,)), 30)
    with torch.no_grad():
        posterior.params.normal_()
    rows, data = VAE(pca.prior, pca.likelihood, posterior), Split(torch.randn(30, 5))
    depth = replace(SHALLOW, max_data=20, intensive_data=2)
    before = torch.get_rng_state()
    findings = evaluate_fully(rows, data, depth=depth)
    assert torch.equal(torch.get_rng_state(), before)
    assert findings.measured["gaps"].refused
    assert "drawn from the model" in findings.measured["calibration"].refused
    assert findings.usage is not None
    assert findings.usage.kl is not None
    whole = evaluate_fully(rows, data, depth=replace(depth, max_data=None))
    assert_close(
        findings.usage.kl.sum().item(), float(whole.measured["importance"].record.rate.mean()), rtol=1e-5, atol=0
    )
    # of the data that are measured, in their own rows, by the same KL in closed form
    chosen = findings.measured["importance"].rows
    assert_close(findings.measured["importance"].record.rate, whole.column("importance", "rate", 30)[chosen])


@unchecked_shapes()
@pytest.mark.slow
def test_the_tables_errors_and_measures_are_those_of_the_functions():
    model, x = skewed_model(), skewed_data(50)
    findings = evaluate_fully(model, Split(x), depth=SHALLOW)
    table = findings.numbers()
    sampled = findings.column("importance", "log_px", 50)
    assert line(table, "log p(x)").value == pytest.approx(sampled.mean().item())
    assert line(table, "log p(x)").standard_error == pytest.approx(sampled.std().item() / 50**0.5)
    correlation = findings.measured["information"].record.total
    parts = [line(table, name) for name in ("marginal KL(q(z) || p(z))", "total correlation", "KL of the dimensions")]
    assert parts[0].value == pytest.approx(parts[1].value + parts[2].value, abs=1e-9)
    assert parts[1].value == correlation.value
    assert parts[1].standard_error == correlation.standard_error
    found = findings.column("prior", "log_px", 50)
    error = findings.column("prior", "standard_error", 50)
    use = findings.column("prior", "effective_sample_size", 50) > 10  # elsewhere one sample carries it
    assert ((found - exact_log_px(model, x))[use].abs() < 5 * error[use]).all()
    assert found.isnan().sum() == 46


@unchecked_shapes()
@pytest.mark.slow
def test_labels_are_probed_and_bits_drawn_at_every_read_are_drawn_once():
    x = torch.rand(120, 6)
    data = Split((x * 255).to(torch.uint8), levels=255, labels=torch.arange(120) % 2, resample=True)
    model = catalog.vae()
    findings = evaluate_fully(model, data, train=data, depth=SHALLOW)
    assert 0 <= findings.measured["probe"].record.linear_accuracy <= 1
    again = evaluate_fully(model, data, train=data, depth=SHALLOW, minutes=1e-9)
    few = again.measured["importance"].record.elbo
    assert torch.equal(findings.measured["importance"].record.elbo[: len(few)], few)


@pytest.mark.parametrize(
    "settings, message",
    [({"num_samples": 1}, "at least 2, not 1"), ({"max_data": 1}, "no standard error"), ({"chains": 0}, "chains must")],
)
def test_depths_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        Depth(**settings)


def test_numbers_have_two_digits_of_their_error():
    assert in_digits(-123.456, 1.234) == ("-123.5", "1.2")
    assert in_digits(0.123456, 0.00234) == ("0.1235", "0.0023")
    assert in_digits(12.0, None) == ("12", "")


def scores(log_px: Tensor, pareto_k: Tensor | None = None) -> Scores:
    """Of which log p(x) matters, and the rate is small."""
    return Scores(log_px, log_px, log_px, log_px if pareto_k is None else pareto_k, log_px.exp()[None], -log_px, 100)


def annealed(log_px: Tensor, effective: Tensor | None = None) -> AnnealedEstimate:
    worth = torch.full_like(log_px, 16) if effective is None else effective
    return AnnealedEstimate(log_px, 0 * log_px, worth, log_px.expand(16, -1), worth, 16, 1000, 10)


def test_findings_of_nothing_are_a_table_of_nothing():
    findings = Findings({}, None, Depth(), "annealed")
    assert findings.numbers(num_elements=3) == ()
    assert sentences(findings) == ()


def test_estimates_of_different_data_are_not_compared():
    """As when settings were changed, and time was up before importance sampling came to the data of annealing."""
    values = torch.full((3,), -10.0).double()
    for count, compared in ((0, False), (1, False), (3, True)):
        measured = {
            "importance": Measured(torch.arange(3), scores(values), complete=False),
            "annealed": Measured(torch.arange(3) + 3 - count, annealed(values), complete=True),
        }
        findings = Findings(measured, None, Depth(), "annealed")
        lines = [number for number in findings.numbers() if number.name.startswith("  minus")]
        assert [line.num_data for line in lines] == [count] * (count > 0)
        assert any(said.startswith("Annealing agrees") for said in sentences(findings)) == compared


def test_noise_is_not_called_agreement():
    """Differences of no sure sign are an agreement where their error is small, and tell nothing where it is large."""
    told = {}
    for name, spread in (("precise", 0.1), ("noisy", 100.0)):
        noise = spread * torch.tensor([-1.0, 1.2, -0.9, 1.0]).double()
        log_px = torch.full((4,), -10.0).double()
        rows = torch.arange(4)
        measured = {
            "importance": Measured(rows, scores(log_px), complete=True),
            "annealed": Measured(rows, annealed(log_px + noise), complete=True),
            "bracket": Measured(rows, Sandwich(log_px, log_px + noise, None, "annealed", 16), complete=True),
        }
        told[name] = " ".join(sentences(Findings(measured, None, Depth(), "annealed")))
    assert "Annealing agrees" in told["precise"]
    assert "closed within its error" in told["precise"]
    assert "4 examples are too few to tell" in told["noisy"]
    assert "too uncertain" in told["noisy"]


def test_chains_that_do_not_count_are_told():
    rows, values = torch.arange(4), torch.full((4,), -10.0).double()
    effective = torch.tensor([1.1, 12.0, 3.5, 15.0]).double()
    measured = {
        "importance": Measured(rows, scores(values), complete=True),
        "annealed": Measured(rows, annealed(values, effective), complete=True),
    }
    findings = Findings(measured, None, Depth(), "annealed")
    assert line(findings.numbers(), "effective chains, median").value == 3.5
    assert "for 2 of 4 examples the effective sample size is below four of 16 chains" in " ".join(sentences(findings))


def test_few_samples_are_said_to_be_too_few_for_a_tail():
    """The threshold of k-hat follows K."""
    rows, values = torch.arange(2), torch.full((2,), -10.0).double()
    measured = {"importance": Measured(rows, scores(values, torch.tensor([0.55, 0.45]).double()), complete=True)}
    few, many = (" ".join(sentences(Findings(measured, None, Depth(num_samples=K), "annealed"))) for K in (100, 1000))
    assert "1 of 2 examples have Pareto k-hat above 0.5, for which 100 samples are too few" in few
    assert "k-hat" not in many


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_make_each_piece_once_also_after_a_stage_that_refuses(tmp_path: Path, processes: int):
    made: list[tuple[int, ...]] = []

    def refuse(rows: Tensor, seed: int) -> Found:
        raise InputError("not of this model")

    def work(rows: Tensor, seed: int) -> Found:
        made.append(tuple(rows.tolist()))
        return Found(rows.double())

    pieces = torch.arange(10).split(2)
    for rank in range(processes):
        stages = [Stage("one", "one", Found, pieces, refuse), Stage("two", "two", Found, pieces, work)]
        measure_in_stages(stages, folder=tmp_path / "kept", share=(rank, processes))
    assert sorted(made) == [tuple(piece.tolist()) for piece in pieces]

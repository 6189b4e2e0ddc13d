"""Uniform dequantization: the noise, what log p(x) of noisy data is, and that it never stands for a probability."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Uniform

from assertions import assert_refused
from run_configs import run_config
from subo import VAE, Conditional, Gaussian, Laplace, Objective, StandardNormal, fit, mlp
from subo.data.batches import batches
from subo.data.dataset import Data, split
from subo.data.loading import load_data, load_rows
from subo.data.quantization import binarized, dequantized, quantized
from subo.data.splits import Split
from subo.data.support import check_support
from subo.evaluation.scores import score
from subo.evaluation.summary import evaluate
from subo.experiments.units import describe_log_px
from subo.report.pictures import shading
from subo.runtime.randomness import stream


def integers(x: Tensor, levels: int = 255) -> Data:
    return Data("pixels", *split(x, levels=levels), kind="grey")


def random_integers(n: int = 60, event: tuple[int, ...] = (1, 4, 4)) -> Data:
    return integers(torch.randint(256, (n, *event), generator=torch.Generator().manual_seed(3), dtype=torch.uint8))


class Constant(nn.Module):
    """p(x|z) that does not depend on z, so that log p(x) is known and an importance estimate of it exact."""

    def __init__(self, p: Distribution):
        super().__init__()
        self.p = p

    def forward(self, z: Tensor) -> Distribution:
        return self.p.expand(torch.Size([len(z)]))


class AtPrior(nn.Module):
    def forward(self, x: Tensor) -> Distribution:
        zero = torch.zeros(len(x), 1, dtype=x.dtype)
        return Independent(Normal(zero, zero + 1), 1)


def known(p: Distribution) -> VAE:
    return VAE(StandardNormal(1), Constant(p), AtPrior()).double()


# The noise


def test_noise_is_uniform_and_of_nothing_else():
    n = 200
    y = torch.arange(256, dtype=torch.uint8).repeat(n, 1)
    x, _ = Split(y, levels=255, resample=True, dequantize=True).read(torch.arange(n), generator=stream("test", 1))
    assert torch.equal(x.floor(), y.float())  # never y + 1, which float32 would round to
    u = (x - y).double()
    count = u.numel()
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / count)
    assert abs(u.square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / count)
    shares = torch.histc(u, bins=20, min=0, max=1) / count
    assert ((shares - 1 / 20).abs() < 5 * math.sqrt(0.05 * 0.95 / count)).all()
    s = u - 0.5
    for products in (s[1:] * s[:-1], s[:, 1:] * s[:, :-1], s * (y.double() - 127.5) / 73.9):
        assert abs(products.mean()) < 5 * products.std() / math.sqrt(products.numel())


def test_no_noise_rounds_into_the_next_cell():
    part = Split(torch.full((1000, 1000), 255, dtype=torch.uint8), levels=255, resample=True, dequantize=True)
    x, _ = part.read(torch.arange(1000), generator=stream("test", 2))
    assert x.dtype == torch.float32
    assert 255 <= x.min() < 255.01
    assert 255.99 < x.max() < 256  # torch.rand would give 256 eight times


def test_training_data_are_noisy_afresh_and_held_out_data_once():
    data = random_integers()
    noisy = dequantized(data, seed=5)
    assert (noisy.kind, noisy.dequantize, noisy.binarize, noisy.seed) == ("real", True, "none", 5)
    assert noisy.train.x.dtype == torch.uint8  # and an epoch costs no more memory

    def epoch(seed: int, number: int) -> Tensor:
        return torch.cat([b.x for b in batches(noisy.train, 20, seed=seed, epoch=number, shuffle=False)])

    reads = [epoch(0, 0), epoch(0, 1), epoch(1, 0)]
    assert torch.equal(reads[0], epoch(0, 0))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (reads[a] != reads[b]).float().mean() > 0.99
    for x in reads:
        assert torch.equal(x.floor(), data.train.x.float())
    for name in ("validation", "test"):
        before, after = getattr(data, name), getattr(noisy, name)
        x, _ = after.read(torch.arange(len(after)))
        assert torch.equal(x, after.read(torch.arange(len(after)))[0])
        assert torch.equal(x, torch.cat([b.x for b in batches(after, 4, seed=9, epoch=9, shuffle=False)]))
        assert torch.equal(x.floor(), before.x.float())
        again, other = (getattr(dequantized(data, seed=seed), name) for seed in (5, 6))
        assert torch.equal(again.x, after.x)
        assert not torch.equal(other.x, after.x)
    same = data.train.take(torch.arange(5))
    alike = dequantized(Data("same", same, same, same, kind="grey"), seed=0, once=True)
    assert len({tuple(part.x.flatten().tolist()) for part in (alike.train, alike.validation, alike.test)}) == 3
    assert data.train.dequantize is False  # what came in is as it was


def test_what_is_drawn_afresh_has_a_mean():
    part = dequantized(random_integers(), seed=0).train
    x, _ = replace(part, resample=False).read(torch.arange(3))
    assert torch.equal(x, part.x[:3] + 0.5)
    with assert_refused("noise", "generator"):
        part.read(torch.arange(3))


def test_data_say_that_they_are_dequantized():
    noisy = dequantized(random_integers(), seed=4)
    assert repr(noisy).endswith("real, dequantized)")
    assert repr(noisy.train).endswith("uint8, levels 255, dequantized, noise drawn at every read)")
    assert repr(noisy.test).endswith("float32, levels 255, dequantized)")
    about = noisy.describe()
    assert (about["dequantize"], about["levels"], about["kind"]) == (True, 255, "real")
    for words in ("0 .. 255", "train", "every read", "validation and test", "seed 4"):
        assert words in about["noise"]
    assert "as stored" not in about["binarization"]
    assert random_integers().describe()["dequantize"] is False
    assert noisy.fingerprint != dequantized(random_integers(), seed=5).fingerprint != random_integers().fingerprint


# What log p(x) is


def test_the_uniform_density_has_eight_bits_a_dimension():
    held_out = dequantized(integers(torch.full((2000, 3, 5), 255, dtype=torch.uint8)), seed=0).test
    p = Independent(Uniform(torch.zeros(1, 3, 5).double(), 256.0), 2)
    result = evaluate(known(p), held_out, num_samples=2)
    assert result.log_px == pytest.approx(-15 * math.log(256), rel=1e-12)  # finite: no value is 256
    assert result.bits_per_dim == pytest.approx(8, rel=1e-12)


@pytest.mark.parametrize("family", [Gaussian, Laplace])
def test_the_mean_over_the_noise_is_a_lower_bound_on_the_log_probability(family: Any):
    """For every level: the exact probability by the cdf, the bound by quadrature, the library's numbers around it."""
    loc, scale, n = 7.3, 1.5, 2000
    likelihood = family((1,), scale=0.5, center=loc, unit=scale / 0.5).double()  # in the data's own units
    p = likelihood(torch.zeros(1, 1, dtype=torch.float64))
    single = p.base_dist if family is Laplace else Normal(torch.tensor(loc).double(), scale)
    levels = torch.arange(17).double()
    exact = (single.cdf(levels + 1) - single.cdf(levels)).log().flatten()
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    u = (nodes + 1) / 2
    bound = (single.log_prob((levels[:, None] + u).reshape(-1, 1)).reshape(17, 200) * weights / 2).sum(1)
    assert (bound < exact).all()
    assert (exact - bound).max() > 0.01

    y = torch.arange(17, dtype=torch.uint8).repeat(n)[:, None]
    held_out = dequantized(Data("y", *[Split(y, levels=16)] * 3, kind="grey"), seed=1).test
    log_px = score(known(p), held_out, num_samples=1).log_px.reshape(n, 17)
    error = log_px.std(0) / math.sqrt(n)
    assert ((log_px.mean(0) - bound).abs() < 5 * error + 1e-4).all()  # of 200 nodes across Laplace's kink
    assert (log_px.mean(0) < exact + 5 * error).all()
    train = dequantized(Data("y", *[Split(y[:17], levels=16)] * 3, kind="grey"), seed=1).train
    reads = [p.log_prob(b.x.double()) for e in range(500) for b in batches(train, 17, seed=0, epoch=e, shuffle=False)]
    log_px = torch.stack(reads)
    error = log_px.std(0) / math.sqrt(500)
    assert ((log_px.mean(0) - bound).abs() < 5 * error + 1e-4).all()


def test_what_log_px_is_said_to_be():
    def said(likelihood: str, **data: Any) -> str:
        return describe_log_px(run_config(likelihood, **{"dequantize": False, **data}))

    assert said("gaussian", levels=255, dequantize=True) == (
        "lower bound on the log-probability of the 8-bit values, by uniform dequantization"
    )
    assert "values 0 to 16, by uniform" in said("laplace", levels=16, dequantize=True)
    assert said("gaussian", levels=255, dequantize=False) == "log-density of x/255"
    assert said("categorical", levels=1, dequantize=False) == "log-probability"


# What is refused


def test_only_integers_with_levels_are_dequantized(tmp_path: Path):
    grey = random_integers()
    with assert_refused("pixels", "bits", "bernoulli"):
        dequantized(replace(binarized(grey, "static", seed=0), binarize="none"), seed=0)
    with assert_refused("dequantized already"):
        dequantized(dequantized(grey, seed=0), seed=0)
    with assert_refused("one of the two"):
        dequantized(binarized(grey, "dynamic", seed=0), seed=0)
    with assert_refused("one of the two"):
        load_data("digits", binarize="static", dequantize=True)
    wide = integers(torch.arange(1000).reshape(100, 10), levels=999)
    with assert_refused("8 bits", "integers up to 999"):
        dequantized(wide, seed=0)
    for x, kind in ((np.random.default_rng(0).random((20, 4)), "grey"), (np.arange(40.0).reshape(20, 2), "whole")):
        np.save(tmp_path / "x.npy", x)
        with assert_refused("x.npy", "only integers with levels", f"these are {kind} values"):
            load_data(tmp_path / "x.npy", dequantize=True)
    np.save(tmp_path / "x.npy", np.eye(8)[None].astype(np.float32))
    with assert_refused("x.npy", "fitted to dequantized integers", "8-bit"):
        load_rows(tmp_path / "x.npy", dequantize=True)


def test_a_density_on_the_unit_interval_is_refused_dequantized_data():
    noisy = dequantized(random_integers(), seed=0)
    p = Independent(Uniform(torch.zeros(1, 1, 4, 4).double(), 1.0), 3)
    with assert_refused("outside of what the likelihood describes"):
        check_support(known(p), noisy.test)


# Rows, and the way back


def test_rows_are_those_of_the_data_set(tmp_path: Path):
    data = load_data("digits", dequantize=True, seed=2)
    assert torch.equal(load_rows("digits", part="test", dequantize=True, seed=2).x, data.test.x)
    train = load_rows("digits", part="train", dequantize=True, seed=2)
    assert not train.resample
    assert torch.equal(train.x.floor(), data.train.x.float())
    assert len(load_rows("digits", dequantize=True, seed=2)) == 1797
    bits = np.eye(4, dtype=np.uint8)[None]  # a dark image of 8 bits may hold nothing else
    np.save(tmp_path / "dark.npy", bits)
    rows = load_rows(tmp_path / "dark.npy", dequantize=True, seed=2)
    assert torch.equal(rows.x.floor(), torch.eye(4)[None, None])
    assert torch.equal(rows.x, load_rows(tmp_path / "dark.npy", dequantize=True, seed=2).x)


def test_quantizing_takes_the_noise_away():
    data = random_integers()
    assert torch.equal(quantized(dequantized(data, seed=0).test.x, levels=255), data.test.x)
    shown = shading(data.test.x + 0.99, levels=255)(data.test.x + 0.99)
    np.testing.assert_allclose(shown, data.test.x / 255)  # the picture that the pixels give, whatever their range
    dark = torch.full((1, 1, 2, 2), 0.7)
    assert shading(dark, levels=16)(dark + 3).max() == pytest.approx(3 / 16)


# Fitting


def objective(seed: int = 0) -> Objective:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        family = Gaussian((5,), scale="per-dimension", center=8.5, unit=5.0)
        q = Conditional(Gaussian((2,)), mlp(5, 4, hidden=(8,)))
        return Objective(VAE(StandardNormal(2), Conditional(family, mlp(2, 5, hidden=(8,))), q))


class Stop(Exception):
    pass


def test_a_crashed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path):
    whole_data = load_data("digits", dequantize=True)
    parts = [replace(s, x=s.x.flatten(1)[:120, 20:25], labels=None, rows=None) for s in
             (whole_data.train, whole_data.validation, whole_data.test)]  # fmt: skip
    data = Data("d", *parts, kind="real", dequantize=True)

    def crash(record: Any) -> None:
        if record.epoch == 2:
            raise Stop

    whole, broken, resumed, other = objective(), objective(), objective(seed=5), objective()
    fit(whole, data, epochs=4, batch_size=50)
    fit(other, replace(data, train=replace(data.train, resample=False)), epochs=4, batch_size=50)
    with pytest.raises(Stop):
        fit(broken, data, epochs=4, batch_size=50, run_dir=tmp_path, checkpoint_minutes=1e-9, on_epoch=crash)
    fit(resumed, data, epochs=4, batch_size=50, run_dir=tmp_path, resume=True)
    vectors = [torch.cat([p.flatten() for p in fitted.parameters()]) for fitted in (whole, resumed, other)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])  # the noise is in training

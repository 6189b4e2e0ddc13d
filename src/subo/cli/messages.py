"""What the command line says of a run: its numbers, and what is in it."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subo.cli.flags import in_flags
from subo.files.nonfinite import in_words
from subo.runtime.digits import in_digits

if TYPE_CHECKING:
    from subo.runs.config import RunConfig

__all__ = ["print_evaluation", "say"]


_LITTLE = 0.1  # nats of an active latent


def say(message: str) -> None:
    """Prints a line at once, so that it keeps its place among those on stderr."""
    print(in_flags(message), flush=True)


def print_evaluation(result: dict[str, Any], config: "RunConfig", *, run: Path) -> None:
    """Prints an evaluation's numbers, with warnings where they should be read with care."""
    # here, since it takes a second that importing this should not
    from subo.experiments.units import bits_of_a_guess, describe_log_px, kind_of_log_px

    print(f"{result['split']}, {result['num_data']} examples, nats per example:")
    print(f"  log p(x)    {_mean(result, 'log_px')}   by {result['num_samples']} samples")
    print(f"  ELBO        {_mean(result, 'elbo')}   = -(rate + distortion)")
    print(f"  rate        {_number(result['rate']):10.3f}")
    print(f"  distortion  {_number(result['distortion']):10.3f}")
    print(f"  active      {result['active_units']:6d} of {result['latent_dim']} latent dimensions")
    for name, layer in (result.get("layers") or {}).items():  # which older runs do not tell
        units = f"{layer['active_units']} of {layer['latent_dim']} active"
        print(f"    {name:9s} {layer['rate']:10.3f}   the rate of this layer, {units}")
    if step := result.get("per_step"):
        print(f"  per time step, {step['num_steps']:,} in all:")
        print(f"    log p(x)  {_mean(step, 'log_px')}")
        print(f"    ELBO      {_mean(step, 'elbo')}")
    kind = kind_of_log_px(config)
    if kind != "density":  # whose bits count nothing
        guess = bits_of_a_guess(config)
        told = "" if guess is None else f"   ({guess:.3g} for a uniform guess)"
        bound = "   an upper bound" * (kind == "bound")
        print(f"  bits/dim    {_number(result['bits_per_dim']):10.3f}{bound}{told}")
    if reduced := result.get("reduced_from"):  # which older runs do not say
        print(
            f"  Note: {_on_time(result, reduced)} All of it: subo evaluate {run} --num-samples {reduced['num_samples']}"
        )
    if kind != "probability" or config.is_conditional:
        print(f"  log p(x) is a {describe_log_px(config)}")
    for caution in (*_cautions(result, config, run), *_of_constants(config, kind)):
        say(f"  Careful: {caution}")


def _mean(result: Mapping[str, Any], name: str) -> str:
    """A mean and its standard error, which it has where it is finite."""
    error = result[f"{name}_se"]
    finite = error is not None and math.isfinite(error)
    return f"{_number(result[name]):10.3f}" + (f" +- {error:.3f}" if finite else "")


def _on_time(result: Mapping[str, Any], reduced: Mapping[str, Any]) -> str:
    """What an evaluation left out, and why."""
    left = f"{result['num_samples']} samples instead of {reduced['num_samples']:,}"
    if result["num_data"] < reduced["num_data"]:
        left += f", of {result['num_data']:,} of {reduced['num_data']:,} examples, taken at random"
    return f"{left}, since all of it would have taken longer than {reduced['seconds']:.0f} s."


def _number(value: float | None) -> float:
    """NaN where an older run wrote null for what is not finite."""
    return math.nan if value is None else value


def _cautions(result: Mapping[str, Any], config: "RunConfig", run: Path) -> Iterator[str]:
    """What should be known of an evaluation before its numbers are used."""
    from subo.evaluation.latents.collapse import (
        remedies,  # here, since it takes a second that importing this should not
    )

    if count := result.get("num_not_finite"):  # which older runs do not say
        finite = result["log_px_finite"]
        others = None if finite is None else in_digits(finite, result["log_px_finite_se"])
        yield in_words(count, result["num_data"], others)
    advice = f"Try another --seed, or {', or '.join(remedies(config.settings)[:2])}."
    if _number(result["rate"]) < 0.1:
        yield (
            f"the latents carry almost no information (rate {result['rate']:.3f} nats): the posterior has nearly "
            f"collapsed to the prior, and the model is nearly the same for every example. {advice}"
        )
    elif result["active_units"] == 0 and not result.get("per_step"):  # a state has no unit
        yield (
            f"no latent dimension is active: the posterior means hardly vary over the examples, although the posterior "
            f"differs from the prior (rate {result['rate']:.3f} nats). The model is probably not trained to its end. "
            f"{advice}"
        )
    elif not result.get("per_step") and result["rate"] < _LITTLE * result["active_units"]:
        each = result["rate"] / result["active_units"]
        yield (
            f"the {result['active_units']} active latents carry {each:.2g} nats each in the mean: active says that a "
            "posterior mean varies over the data (its variance is above 0.01), and not that it tells much of them."
        )
    if _number(result["median_ess"]) < result["num_samples"] / 10:
        above = "well above" if _number(result["median_ess"]) < 5 else "above"
        yield (
            f"the median effective sample size is {result['median_ess']:.1f} of {result['num_samples']}: log p(x) may "
            f"be {above}. More samples tell: subo evaluate {run} --num-samples {10 * result['num_samples']}"
        )
    if result.get("high_pareto_k"):  # which older runs do not say
        highest = result.get("highest_pareto_k", 0.7)  # of older runs, whatever the number of samples
        yield (
            f"the importance weights of {result['high_pareto_k']:,} of {result['num_data']:,} examples have Pareto "
            f"k-hat above {highest:.2g}: for these {result['num_samples']} samples are too few, and log p(x) is too "
            "low more often than too high, by more than its error. To see by how much, by annealing if latents are "
            f"continuous: subo evaluate {run} --full"
        )
    if result["at_floor"]:
        yield (
            f"{result['at_floor']:.1%} of the likelihood's scales lie at their floor (--min-scale): log p(x) leans on "
            "it. Constant or copied features do this, and pixels that are nearly always black or white."
        )


def _of_constants(config: "RunConfig", kind: str) -> Iterator[str]:
    """What elements that never vary do to a density, which is as high at them as its floor lets it be."""
    count, elements = config.data.constant, math.prod(config.data.event_shape)
    if kind == "density" and count:  # which older runs do not say
        yield (
            f"{count:,} of {elements:,} elements ({count / elements:.0%}) have one value in all training data: each "
            "adds some nats to log p(x), up to the floor of its scale (--min-scale), that tell nothing."
        )

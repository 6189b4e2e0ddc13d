"""What the command line prints about a run's evaluation."""

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


_LITTLE = 0.1  # nats per active latent


def say(message: str) -> None:
    """Prints a line and flushes, so that it keeps its place among lines on stderr."""
    print(in_flags(message), flush=True)


def print_evaluation(result: dict[str, Any], config: "RunConfig", *, run: Path) -> None:
    """Prints an evaluation's numbers, with warnings if they should be read with care."""
    # here, since it takes a second to import
    from subo.experiments.units import bits_of_a_guess, describe_log_px, kind_of_log_px

    print(f"{result['split']}, {result['num_data']} examples, nats per example:")
    log_px = config.log_px
    print(f"  {log_px:11s} {_mean(result, 'log_px')}   by {result['num_samples']} samples")
    if baseline := result.get("baseline"):
        print(f"  baseline    {_mean(baseline, 'log_px')}   {baseline['name']}")
        print(f"  gain        {_mean(baseline, 'gain')}   of {log_px} over the baseline, row by row")
    print(f"  ELBO        {_mean(result, 'elbo')}   = -(rate + distortion)")
    print(f"  rate        {_number(result['rate']):10.3f}")
    print(f"  distortion  {_number(result['distortion']):10.3f}")
    print(f"  active      {result['active_units']:6d} of {result['latent_dim']} latent dimensions")
    for name, layer in (result.get("layers") or {}).items():  # not recorded by older runs
        units = f"{layer['active_units']} of {layer['latent_dim']} active"
        print(f"    {name:9s} {layer['rate']:10.3f}   the rate of this layer, {units}")
    if step := result.get("per_step"):
        print(f"  per time step, {step['num_steps']:,} in all:")
        print(f"    {log_px:9s} {_mean(step, 'log_px')}")
        print(f"    ELBO      {_mean(step, 'elbo')}")
    kind = kind_of_log_px(config)
    if kind != "density":  # its bits have no meaning
        guess = bits_of_a_guess(config)
        reference = "" if guess is None else f"   ({guess:.3g} for a uniform guess)"
        bound = "   an upper bound" * (kind == "bound")
        print(f"  bits/dim    {_number(result['bits_per_dim']):10.3f}{bound}{reference}")
    if reduced := result.get("reduced_from"):  # not recorded by older runs
        print(
            f"  Note: {_on_time(result, reduced)} For all of it: subo evaluate {run} --num-samples "
            f"{reduced['num_samples']}"
        )
    if kind != "probability" or config.is_conditional:
        print(f"  {log_px} is a {describe_log_px(config)}")
    for caution in (*_cautions(result, config, run), *_of_constants(config, kind)):
        say(f"  Careful: {caution.replace('log p(x)', log_px)}")


def _mean(result: Mapping[str, Any], name: str) -> str:
    """A mean, and its standard error if that is finite."""
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
    """A number; NaN where an older run wrote null for one that is not finite."""
    return math.nan if value is None else value


def _cautions(result: Mapping[str, Any], config: "RunConfig", run: Path) -> Iterator[str]:
    """What to know about an evaluation before its numbers are used."""
    from subo.evaluation.latents.collapse import (
        remedies,  # here, since it takes a second to import
    )

    if count := result.get("num_not_finite"):  # not recorded by older runs
        finite = result["log_px_finite"]
        others = None if finite is None else in_digits(finite, result["log_px_finite_se"])
        yield in_words(count, result["num_data"], others)
    if (baseline := result.get("baseline")) and not baseline["gain"] > 2 * _number(baseline["gain_se"]):
        yield (
            f"log p(x) is not clearly higher than that of {baseline['name']}, fitted to the same rows: use that, "
            "unless more rows or other settings help. Try --learning-rate 0.001, or a smaller --latent-dim or --hidden."
        )
    advice = f"Try another --seed, or {', or '.join(remedies(config.settings)[:2])}."
    if _number(result["rate"]) < 0.1:
        yield (
            f"the latents carry almost no information (rate {result['rate']:.3f} nats): the posterior has nearly "
            f"collapsed to the prior, and the model is nearly the same for every example. {advice}"
        )
    elif result["active_units"] == 0 and not result.get("per_step"):  # states have no units
        yield (
            "no latent dimension is active: the posterior means barely vary across the examples, although the "
            f"posterior differs from the prior (rate {result['rate']:.3f} nats). The model is probably not fully "
            f"trained. {advice}"
        )
    elif not result.get("per_step") and result["rate"] < _LITTLE * result["active_units"]:
        each = result["rate"] / result["active_units"]
        yield (
            f"the {result['active_units']} active latents carry {each:.2g} nats each on average: active means that a "
            "posterior mean varies over the data (its variance is above 0.01), not that it carries much information."
        )
    if _number(result["median_ess"]) < result["num_samples"] / 10:
        higher = "much higher" if _number(result["median_ess"]) < 5 else "higher"
        yield (
            f"the median effective sample size is {result['median_ess']:.1f} of {result['num_samples']}: log p(x) may "
            f"be {higher}. To check, use more samples: subo evaluate {run} --num-samples {10 * result['num_samples']}"
        )
    if result.get("high_pareto_k"):  # not recorded by older runs
        highest = result.get("highest_pareto_k", 0.7)  # the limit in older runs, for any number of samples
        yield (
            f"the importance weights of {result['high_pareto_k']:,} of {result['num_data']:,} examples have Pareto "
            f"k-hat above {highest:.2g}: for these, {result['num_samples']} samples are too few, and log p(x) is too "
            "low more often than too high, by more than its error. To see by how much (by annealing, if latents are "
            f"continuous): subo evaluate {run} --full"
        )
    if result["at_floor"]:
        yield (
            f"{result['at_floor']:.1%} of the likelihood's scales are at their minimum (--min-scale), so log p(x) "
            "depends on it. Causes are constant or duplicate features, and pixels that are nearly always black or "
            "white."
        )


def _of_constants(config: "RunConfig", kind: str) -> Iterator[str]:
    """Cautions about elements that never vary, where the density is limited only by its minimum scale."""
    count, elements = config.data.constant, math.prod(config.data.event_shape)
    if kind == "density" and count:  # not recorded by older runs
        yield (
            f"{count:,} of {elements:,} elements ({count / elements:.0%}) have one value in all training data: each "
            "adds some nats to log p(x), limited by the minimum scale (--min-scale), that carry no information."
        )

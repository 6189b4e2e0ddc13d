"""What the command line says of a run: its numbers, and what is in it."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from subo.digits import in_digits
from subo.nonfinite import decoded, in_words
from subo.python_runs import is_made_in_python
from subo.run_files import noted_digest
from subo.run_paths import SPLITS
from subo.runs import Run

__all__ = ["print_evaluation", "print_run", "say"]

# Options that say something beside some values of another one only.
_DENSITIES, _FLOWS = ("gaussian", "laplace"), ("autoregressive-flow", "spline-flow", "inverse-autoregressive", "spline")
_BESIDE = {
    "scale": (("likelihood",), _DENSITIES),
    "min_scale": (("likelihood",), _DENSITIES),
    "num_classes": (("likelihood",), ("categorical",)),
    "num_labels": (("condition",), ("labels",)),
    "prior_components": (("prior",), ("mixture", "vamp")),
    "prior_covariance": (("prior",), ("mixture",)),
    "flow_transforms": (("prior", "posterior"), _FLOWS),
    "flow_hidden": (("prior", "posterior"), _FLOWS),
    "channels": (("network",), ("conv",)),
    "beta": (("bound",), ("elbo",)),
    "free_bits": (("bound",), ("elbo",)),
    "closed_form_kl": (("bound",), ("elbo",)),
    "alpha": (("bound",), ("renyi",)),
    "groups": (("bound",), ("miwae",)),
    "latent_classes": (("posterior",), ("categorical",)),
    "refinement_steps": (("inference",), ("semi-amortized",)),
    "refinement_rate": (("inference",), ("semi-amortized",)),
    "refinement_through": (("inference",), ("semi-amortized",)),
    "baseline": (("gradient", "posterior"), ("score-function", "bernoulli", "categorical")),
    "normalize_signal": (("gradient", "posterior"), ("score-function", "bernoulli", "categorical")),
    "temperature": (("gradient",), ("gumbel-softmax",)),
}


_NAMED = 20  # classes
_LITTLE = 0.1  # nats of an active latent


def say(message: str) -> None:
    """Prints a line at once, so that it keeps its place among those on stderr."""
    print(message, flush=True)


def print_evaluation(result: dict[str, Any], config: dict[str, Any], *, run: Path) -> None:
    """Prints an evaluation's numbers, with warnings where they should be read with care."""
    # here, since it takes a second that importing this should not
    from subo.units import bits_of_a_guess, describe_log_px, is_conditional, kind_of_log_px

    print(f"{result['split']}, {result['num_data']} data, nats per datum:")
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
    if kind != "probability" or is_conditional(config):
        print(f"  log p(x) is a {describe_log_px(config)}")
    for caution in (*_cautions(result, config, run), *_of_constants(config, kind)):
        print(f"  Careful: {caution}")


def _mean(result: Mapping[str, Any], name: str) -> str:
    """A mean and its standard error, which it has where it is finite."""
    error = result[f"{name}_se"]
    finite = error is not None and math.isfinite(error)
    return f"{_number(result[name]):10.3f}" + (f" +- {error:.3f}" if finite else "")


def _on_time(result: Mapping[str, Any], reduced: Mapping[str, Any]) -> str:
    """What an evaluation left out, and why."""
    left = f"{result['num_samples']} samples instead of {reduced['num_samples']:,}"
    if result["num_data"] < reduced["num_data"]:
        left += f", of {result['num_data']:,} of {reduced['num_data']:,} data, taken at random"
    return f"{left}, since all of it would have taken longer than {reduced['seconds']:.0f} s."


def _number(value: float | None) -> float:
    """NaN where an older run wrote null for what is not finite."""
    return math.nan if value is None else value


def _cautions(result: Mapping[str, Any], config: Mapping[str, Any], run: Path) -> Iterator[str]:
    """What should be known of an evaluation before its numbers are used."""
    from subo.evaluation.collapse import remedies  # here, since it takes a second that importing this should not

    if count := result.get("num_not_finite"):  # which older runs do not say
        finite = result["log_px_finite"]
        others = None if finite is None else in_digits(finite, result["log_px_finite_se"])
        yield in_words(count, result["num_data"], others)
    if _number(result["rate"]) < 0.1 or (
        result["active_units"] == 0 and not result.get("per_step")
    ):  # a state has no unit
        yield (
            f"the latents say next to nothing (rate {result['rate']:.3f} nats, {result['active_units']} active): the "
            "posterior is nearly the prior, and the model says nearly the same of every datum. "
            f"Try another --seed, or {', or '.join(remedies({**config['options'], **config['training']})[:2])}."
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
            f"the importance weights of {result['high_pareto_k']:,} of {result['num_data']:,} data have Pareto k-hat "
            f"above {highest:.2g}: for these {result['num_samples']} samples are too few, and log p(x) is too low more "
            "often than too high, by more than its error. How far it is off is told, by annealing where latents are "
            f"continuous, by: subo evaluate {run} --full"
        )
    if result["at_floor"]:
        yield (
            f"{result['at_floor']:.1%} of the likelihood's scales lie at their floor (--min-scale): log p(x) leans on "
            "it. Constant or copied features do this, and pixels that are nearly always black or white."
        )


def _of_constants(config: Mapping[str, Any], kind: str) -> Iterator[str]:
    """What elements that never vary do to a density, which is as high at them as its floor lets it be."""
    count, elements = config["data"].get("constant"), math.prod(config["data"]["event_shape"])
    if kind == "density" and count:  # which older runs do not say
        yield (
            f"{count:,} of {elements:,} elements ({count / elements:.0%}) have one value in all training data: each "
            "adds some nats to log p(x), up to the floor of its scale (--min-scale), that tell nothing."
        )


def print_run(run: Run) -> None:
    """Prints what is in a run folder: data, model, training and results."""
    from subo.experiments import open_run  # here, since it takes a second that printing numbers does not need

    config = run.read_config()
    data, training = config["data"], config["training"]
    table = Table.grid(padding=(0, 2))
    table.add_row("data", f"{data['source']}: {data['sizes']} of shape {tuple(data['event_shape'])}, {data['kind']}")
    table.add_row("", data["noise"] if data["dequantize"] else data["binarization"])
    if data["division"]:
        table.add_row("", f"parts: {data['division']}")
    if classes := data["meaning"]["class_names"]:
        more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
        table.add_row("classes", f"{', '.join(classes[:_NAMED])}{more}")
    in_python = is_made_in_python(config)
    table.add_row("recipe", "none: made in Python" if in_python else config["recipe"])
    told = config["objective"] if in_python else _telling(config)
    table.add_row("model", ", ".join(f"{name} {_short(value)}" for name, value in told.items()))
    digest = run.digest
    if run.model.exists() and not in_python:
        opened = open_run(run.path)
        model, digest = opened.objective.model, opened.digest
        table.add_row("parameters", f"{sum(p.numel() for p in model.parameters()):,}")
    table.add_row("training", ", ".join(f"{name} {_short(value)}" for name, value in training.items() if value))
    records = run.read_metrics()
    if records:
        last = records[-1]
        table.add_row("epochs", f"{last['epoch']} in {last['seconds']:.1f} s, {last['step']} steps")
    how = "in Python, by subo.fit(..., resume=True)" if in_python else "with fit --resume"
    table.add_row("state", "finished" if run.model.exists() else f"not finished: go on {how}")
    files = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*.[cjgpsm]*"))
    hidden = ("snapshots", "evaluation-pieces")
    table.add_row("files", ", ".join(name for name in files if not name.startswith(hidden)))
    Console().print(table)
    if caution := run.caution:
        say(f"Careful: {caution}")
    told = [file for split in SPLITS for file in (run.evaluation_of(split), run.per_datum(split))]
    known = {digest} if run.digest else {digest, None}  # version 0.1 did not note of which weights its results are
    others = [file for file in (*told, run.gradients) if file.exists() and noted_digest(file) not in known]
    for file in others:
        say(f"{file.name} is of other weights or settings than the run has now, and is not shown: measure again.")
    measured = [
        split for split in SPLITS if run.evaluation_of(split).exists() and run.evaluation_of(split) not in others
    ]
    if measured:  # on the test data, where there is a choice
        print_evaluation(decoded(run.read_evaluation(measured[0])), config, run=run.path)


def _telling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's options that apply beside the others, or that were set to something."""
    from subo.options import defaults

    options, plain = config["options"], defaults(config["recipe"], "recipe")

    def tells(name: str) -> bool:
        others, values = _BESIDE.get(name, ((), ()))
        applies = not others or any(options.get(other) in values for other in others)
        return applies or _short(options[name]) != _short(plain.get(name))

    return {name: value for name, value in options.items() if tells(name)}


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

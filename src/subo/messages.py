"""What the command line says of a run: its numbers, and what is in it."""

from typing import Any

from rich.console import Console
from rich.table import Table

from subo.files import read_json
from subo.runs import Run

__all__ = ["print_evaluation", "print_run"]


def print_evaluation(result: dict[str, Any], config: dict[str, Any]) -> None:
    """Prints an evaluation's numbers, with warnings where they should be read with care."""
    from subo.experiments import describe_log_px  # here, since it takes a second that importing this should not

    print(f"{result['split']}, {result['num_data']} data, nats per datum:")
    print(f"  log p(x)    {result['log_px']:10.3f} +- {result['log_px_se']:.3f}   by {result['num_samples']} samples")
    print(f"  ELBO        {result['elbo']:10.3f} +- {result['elbo_se']:.3f}   = -(rate + distortion)")
    print(f"  rate        {result['rate']:10.3f}")
    print(f"  distortion  {result['distortion']:10.3f}")
    print(f"  active      {result['active_units']:6d} of {result['latent_dim']} latent dimensions")
    meaning = describe_log_px(config)
    kind = "" if meaning == "log-probability" else f"   log p(x) is a {meaning}"
    print(f"  bits/dim    {result['bits_per_dim']:10.3f}{kind}")
    if result["active_units"] == 0:
        print(
            "  Careful: no latent dimension is active: the posterior has collapsed to the prior, and the model says "
            "the same of every datum. Try --kl-warmup-epochs 50, --free-bits 1, or another seed."
        )
    if result["num_samples"] >= 100 and result["median_ess"] < 5:
        print(f"  Careful: the median effective sample size is {result['median_ess']:.1f}; log p(x) may be well above.")
    if result["at_floor"]:
        print(
            f"  Careful: {result['at_floor']:.1%} of the likelihood's scales lie at their floor (--min-scale): log "
            "p(x) leans on it. Constant or copied features do this."
        )


def print_run(run: Run) -> None:
    """Prints what is in a run folder: data, model, training and results."""
    from subo.experiments import open_run  # here, since it takes a second that printing numbers does not need

    config = run.read_config()
    data, training = config["data"], config["training"]
    table = Table.grid(padding=(0, 2))
    table.add_row("data", f"{data['source']}: {data['sizes']} of shape {tuple(data['event_shape'])}, {data['kind']}")
    table.add_row("", data["binarization"])
    table.add_row("recipe", config["recipe"])
    options = ", ".join(f"{name} {_short(value)}" for name, value in config["options"].items())
    table.add_row("model", options)
    if run.model.exists():
        model = open_run(run.path).objective.model
        table.add_row("parameters", f"{sum(p.numel() for p in model.parameters()):,}")
    table.add_row("training", ", ".join(f"{name} {_short(value)}" for name, value in training.items() if value))
    records = run.read_metrics()
    if records:
        last = records[-1]
        table.add_row("epochs", f"{last['epoch']} in {last['seconds']:.1f} s, {last['step']} steps")
    table.add_row("state", "finished" if run.model.exists() else "not finished: go on with fit --resume")
    files = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*.[jgpsm]*"))
    table.add_row("files", ", ".join(name for name in files if not name.startswith("snapshots")))
    Console().print(table)
    if run.evaluation.exists():
        print_evaluation(read_json(run.evaluation), config)


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

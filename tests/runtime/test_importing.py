"""Importing subo, and random numbers that are drawn aside, change nothing that is not ours."""

import contextlib
import json
import subprocess
import sys

import pytest
import torch

from subo.runtime.randomness import forked

STATE = """
import json, logging, os, random, sys, warnings
import numpy, torch
from torch.distributions import Distribution, Normal

def state():
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    return {
        "validation": Distribution._validate_args,
        "normal": repr(Normal.arg_constraints),
        "checks": refuses(),
        "root handlers": len(logging.root.handlers),
        "level": logging.root.level,
        "handlers": sum(len(logger.handlers) for logger in loggers if logger.name.startswith("subo")),
        "filters": repr(warnings.filters),
        "dtype": str(torch.get_default_dtype()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "rng": hash(tuple(torch.get_rng_state().tolist())),
        "numpy": repr(numpy.random.get_state()),
        "random": hash(random.getstate()),
        "environment": dict(os.environ),
        "hook": (repr(sys.excepthook), repr(sys.displayhook)),
        "path": sys.path,
    }

def refuses():
    try:
        Normal(torch.zeros(()), -torch.ones(()))
    except ValueError:
        return True
    return False

before = state()
import subo
subo.fit  # everything but the estimator is imported when something is asked for
after = state()
changed = [name for name in before if before[name] != after[name]]
heavy = {"lightning_fabric", "matplotlib", "rich", "sklearn", "pandas", "IPython"}
loaded = sorted(heavy & set(sys.modules))
print(json.dumps([changed, loaded]))
"""


def test_importing_changes_nothing_and_loads_nothing_heavy():
    run = subprocess.run([sys.executable, "-c", STATE], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [[], []]
    assert run.stderr == ""


@pytest.mark.slow
def test_the_package_is_imported_at_once_and_the_library_when_it_is_asked_for():
    """So that the command line answers signals while it is imported."""
    lines = (
        "import sys, subo, subo.cli.entry, subo.__main__; light = 'torch' not in sys.modules; "
        "assert light and subo.__name__ and not hasattr(subo, 'nothing'); "
        "from subo import *; assert VAE is subo.VAE and subo.models.vae.VAE is VAE and 'fit' in dir(subo)"
    )
    run = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert run.stderr == ""


def test_flows_of_zuko_work_after_importing_subo():
    lines = "import subo, zuko; zuko.flows.MAF(2)().sample(); zuko.flows.NSF(2, 1)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", lines], capture_output=True, text=True, check=False)
    assert run.stderr == ""


def test_forked_random_numbers_leave_no_trace_and_come_back():
    before = torch.get_rng_state()
    with forked(3):
        inside = torch.randn(5)
    assert torch.equal(torch.get_rng_state(), before)
    with forked(3):
        assert torch.equal(torch.randn(5), inside)
    with forked(4):
        assert not torch.equal(torch.randn(5), inside)
    with contextlib.suppress(RuntimeError), forked(3):
        raise RuntimeError(torch.randn(5))
    assert torch.equal(torch.get_rng_state(), before)

"""Long sequences: the work of a gradient grows with the number of steps, not with its square."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from subo import Gaussian, HiddenMarkov
from subo.recipes import deep_markov

D = 3


class Written(TorchDispatchMode):
    """Counts the numbers in all that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        self.count += sum(t.numel() for t in (returned, args[0]) if isinstance(t, Tensor) and not func.is_view)
        return returned


def terms(name: str, x: Tensor) -> Tensor:
    if name == "deep Markov":
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        torch.manual_seed(0)
        model = deep_markov((D,), likelihood="gaussian", latent_dim=2, reader_hidden=40, hidden=(4,)).model
        return model.draw(x, {"mask": mask}).log_weight
    model = HiddenMarkov(40, Gaussian((D,)))
    return {
        "likelihood": model.log_px,
        "marginals": lambda x: model.pairwise_marginals(x).square().sum(),
        "path": lambda x: model.most_likely_path(x)[1],
    }[name](x)


@pytest.mark.parametrize("name", ["deep Markov", "likelihood", "marginals", "path"])
def test_the_work_of_a_gradient_grows_with_the_number_of_steps(name: str):
    counts = []
    for length in (40, 160):
        value = terms(name, torch.randn(1, length, D)).sum()
        with Written() as written:
            value.backward()
        counts.append(written.count)
    assert counts[1] < 5 * counts[0]

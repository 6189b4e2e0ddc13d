import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    torch.manual_seed(0)

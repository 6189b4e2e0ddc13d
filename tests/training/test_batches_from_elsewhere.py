"""What docs/large-data.md says of other libraries' batches, run as written beside small stand-ins for the libraries."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import subo

PAGE = Path(__file__).parent.parent.parent / "docs" / "large-data.md"
BLOCKS = re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL)
X, LABELS = torch.rand(1000, 3, 4, 4), torch.arange(1000) % 3
passes: list[str] = []


class Streamed:
    """Rows of X and LABELS in batches, as the libraries give them once they are set up; counts its passes."""

    def __init__(self, form: Any, batch_size: int):
        self.form, self.batch_size = form, batch_size

    def __len__(self) -> int:
        return -(-len(X) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        passes.append("pass")
        for rows in torch.randperm(len(X)).split(self.batch_size):
            yield self.form(X[rows], LABELS[rows])


class Stored:
    """Takes the steps by which the libraries are set up: each returns a data set again."""

    def __getattr__(self, name: str) -> Any:
        if name not in ("shuffle", "decode", "to_tuple", "batched", "with_format"):
            raise AttributeError(name)
        return lambda *_, **__: self

    def iter(self, batch_size: int) -> Streamed:
        return Streamed(lambda x, label: {"image": (255 * x).to(torch.uint8), "label": label}, batch_size)


def library(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


def pairs(_: Any, batch_size: int | None, num_workers: int) -> Any:
    """A loader of pairs; WebDataset's batches are made before it, and it has no length."""
    streamed = Streamed(lambda x, label: [x, label], batch_size or 250)
    return streamed if batch_size else type("Loader", (), {"__iter__": lambda _: iter(streamed)})()


STAND_INS = {
    "webdataset": library("webdataset", WebDataset=lambda *_, **__: Stored(), WebLoader=pairs),
    "datasets": library("datasets", load_dataset=lambda *_, **__: Stored()),
    "litdata": library("litdata", StreamingDataset=lambda *_, **__: Stored(), StreamingDataLoader=pairs),
}


@pytest.mark.parametrize("block", BLOCKS, ids=STAND_INS)
def test_the_page_trains_on_batches_of_another_library(block: str, monkeypatch: pytest.MonkeyPatch):
    for name, module in STAND_INS.items():
        monkeypatch.setitem(sys.modules, name, module)
    passes.clear()
    settings = {"latent_dim": 2, "hidden": (8,), "likelihood": "gaussian"}
    objective = subo.make("vae", subo.Split(X, labels=LABELS), **settings)
    before = [parameter.clone() for parameter in objective.parameters()]
    few = block.replace("steps_per_epoch=4000", "steps_per_epoch=4").replace("epochs=10", "epochs=2")
    known = {"subo": subo, "objective": objective, "held_out": subo.Split(X[:50], labels=LABELS[:50])}
    exec(compile(few, PAGE.name, "exec"), known)
    assert len(passes) == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))


def test_each_library_has_an_example():
    assert [re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)[-1] for block in BLOCKS] == [*STAND_INS]

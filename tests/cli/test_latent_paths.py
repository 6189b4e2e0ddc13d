"""The commands that decode places of latent space, and what they refuse."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from command_line import assert_refused, run
from subo.evaluation.latents.usage import posterior_means
from subo.evaluation.paths import interpolate
from subo.evaluation.reconstruction import decode
from subo.experiments.experiment import open_run

pytestmark = pytest.mark.slow

SMALL = ["--hidden", 8, "--epochs", 2, "--evaluation-samples", 10, "--quiet"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paths") / "run"
    assert run("fit", "digits", "--binarize", "static", "--latent-dim", 2, "--out", out, *SMALL) == 0
    return out


def test_a_path_between_two_rows_starts_and_ends_at_their_reconstructions(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    experiment = open_run(fitted)
    model, test = experiment.model, experiment.data().test
    ends = posterior_means(model, test.take(torch.tensor([2, 16])))  # L-BFGS magnifies what rounds otherwise
    for kind in ("linear", "spherical", "geodesic"):
        out = tmp_path / f"{kind}.npy"
        options = ["--part", "test", "--points", 5, "--kind", kind]
        assert run("interpolate", fitted, "digits", 3, 17, "--out", out, *options) == 0
        found = np.load(out)
        z = interpolate(model, ends[0], ends[1], num_points=5, kind=kind)
        np.testing.assert_allclose(found, decode(model, z).numpy(), atol=1e-5)
        np.testing.assert_allclose(found[[0, -1]], decode(model, ends).numpy(), atol=1e-5)
    for name in ("path.png", "path.gif"):
        assert run("interpolate", fitted, "digits", 3, 17, "--out", tmp_path / name, "--part", "test") == 0
        with Image.open(tmp_path / name) as picture:
            assert picture.size[0] > 200
    assert_refused(capsys, "interpolate", fitted, "digits", 0, 17, "--out", tmp_path / "x.png")


def test_latents_are_decoded_as_encode_wrote_them(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("z.npy", "z.csv"):
        assert run("encode", fitted, "digits", "--part", "test", "--out", tmp_path / name) == 0
        assert run("decode", fitted, tmp_path / name, "--out", tmp_path / "x.npy") == 0
        assert run("reconstruct", fitted, "digits", "--part", "test", "--out", tmp_path / "r.npy") == 0
        np.testing.assert_allclose(np.load(tmp_path / "x.npy"), np.load(tmp_path / "r.npy"), atol=1e-5)
    assert run("decode", fitted, tmp_path / "z.npy", "--out", tmp_path / "x.png") == 0
    for wrong in (np.zeros((3, 5)), np.zeros(2), np.full((2, 2), np.nan), np.zeros((0, 2))):
        np.save(tmp_path / "w.npy", wrong)
        assert_refused(capsys, "decode", fitted, tmp_path / "w.npy", "--out", tmp_path / "y.npy")
    assert_refused(capsys, "decode", fitted, tmp_path / "none.csv", "--out", tmp_path / "y.npy")


def test_traversals_are_of_the_most_informative_dimensions_first(fitted: Path, tmp_path: Path):
    assert run("traverse", fitted, "--out", tmp_path / "t.npy", "--points", 3, "--most", 1) == 0
    found = np.load(tmp_path / "t.npy")
    model = open_run(fitted).model
    zeros, ends = torch.zeros(3, 2), torch.tensor([-3.0, 0.0, 3.0])
    each = [decode(model, torch.stack(z, 1)).numpy() for z in ((ends, zeros[:, 0]), (zeros[:, 0], ends))]
    assert any(np.allclose(found, means, atol=1e-6) for means in each)
    assert run("traverse", fitted, "--out", tmp_path / "t.png") == 0


def test_rows_of_a_table_between_two_rows_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": rng.choice(["a", "b"], 100), "size": rng.normal(5, 2, 100)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert run("fit", tmp_path / "t.csv", "--out", tmp_path / "run", "--latent-dim", 2, *SMALL) == 0
    out = tmp_path / "path.csv"
    assert run("interpolate", tmp_path / "run", tmp_path / "t.csv", 1, 2, "--out", out, "--points", 4) == 0
    found = pd.read_csv(out)
    assert [*found.columns] == ["kind", "size"]
    assert len(found) == 4
    assert set(found.kind) <= {"a", "b"}
    assert_refused(capsys, "interpolate", tmp_path / "run", tmp_path / "t.csv", 1, 2, "--out", tmp_path / "x.gif")

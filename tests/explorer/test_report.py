"""The page of a run in a real browser: it loads nothing, says nothing, shows what Python computes, and can be used."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from browser import browser, silent, until
from PIL import Image

from command_line import run
from subo.evaluation.reconstruction import decode
from subo.experiments.experiment import open_run
from subo.report.class_pictures import prior_of
from subo.runs.run import Run
from subo.runtime.randomness import forked

pytestmark = pytest.mark.slow

SHORT = ["--epochs", 2, "--hidden", 16, "--evaluation-samples", 20, "--quiet"]
MARKUP = '<img src=x onerror="alert(1)">'


Shown = tuple[str, Path, Path]


def table(folder: Path) -> Path:
    path = folder.with_suffix(".csv")
    rng = np.random.default_rng(0)
    kinds = rng.choice([MARKUP, "b", "=1+1"], 120)
    frame = pd.DataFrame({"</script><b>kind": kinds, "size": rng.normal(5, 2, 120), "count": rng.poisson(30, 120) ** 2})
    frame.loc[:9, "size"] = np.nan
    frame.to_csv(path, index=False)
    return path


def waves(path: Path) -> Path:
    path.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        angle = rng.uniform(0.1, 0.4) * np.arange(rng.integers(12, 20)) + rng.uniform(0, 6)
        x = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        np.save(path / f"{number}.npy", np.where(rng.random(x.shape) < 0.1, np.nan, x))  # some values are missing
    return path


INKED = """() => {
  const canvas = document.querySelector("#forecast canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, k) => k % 4 === 3 && value === 255).length;
}"""
"""The number of pixels of a forecast that are drawn on."""

RUNS: dict[str, list[Any]] = {
    "digits": ["digits", "--latent-dim", 2, "--binarize", "dynamic"],
    "grey": ["digits", "--latent-dim", 5, "--network", "conv", "--channels", "4,8"],
    "classes": ["digits", "--latent-dim", 2, "--condition", "labels", "--binarize", "static"],
    "one": ["digits", "--latent-dim", 1, "--posterior", "full-rank"],
    "flow": ["digits", "--latent-dim", 2, "--posterior", "inverse-autoregressive", "--prior", "spline-flow"],
    "categories": ["digits", "--latent-dim", 3, "--posterior", "categorical", "--gradient", "gumbel-softmax"],
    "ladder": ["digits", "--recipe", "ladder", "--latent-dims", "3,2"],
    "table": ["table"],
    "waves": ["waves", "--recipe", "deep-markov", "--latent-dim", 2],
}


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module", params=RUNS)
def shown(
    request: pytest.FixtureRequest, opened: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    source, *options = RUNS[request.param]
    source = {"table": table, "waves": waves}[source](folder / source) if source in ("table", "waves") else source
    own_widths = request.param in ("ladder", "waves")
    short = [word for word in SHORT if word not in ("--hidden", 16)] if own_widths else SHORT
    out, page = folder / "run", folder / "report.html"
    with pytest.MonkeyPatch.context() as patch:  # pictures of the run are not those of its page
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        assert run("fit", source, "--out", out, *options, *short) == 0
    assert run("report", out, "--out", page) == 0
    return request.param, out, page


def loaded(opened: Any, page: Path, **options: Any) -> tuple[Any, list[str]]:
    tab = opened.new_page(**options)
    faults = silent(tab)
    tab.goto(page.as_uri())
    until(tab, "globalThis.subo && subo.plane")
    return tab, faults


def test_every_page_is_silent_small_and_fits_a_phone(opened: Any, shown: Shown):
    name, _, page = shown
    assert page.stat().st_size < 2e6
    for options in ({"viewport": {"width": 1200, "height": 900}}, {"viewport": {"width": 360, "height": 700}}):
        tab, faults = loaded(opened, page, **options)
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.locator("section").count() >= 4
        assert "undefined" not in (text := tab.inner_text("body"))
        assert "NaN" not in text
        assert tab.locator("img").count() == 0  # markup in names stays text
        tab.close()
        assert not faults, name


def test_the_picture_at_a_dragged_point_is_the_models(opened: Any, shown: Shown):
    """Within 2/255: half precision of the weights, and the rounding of a shade."""
    name, out, page = shown
    tab, faults = loaded(opened, page)
    if not tab.evaluate("Boolean(subo.model.decoder) && subo.record.shape.length === 3"):
        assert name in ("flow", "categories", "ladder", "table", "waves")
        tab.close()
        return
    box = tab.locator("canvas.plane").bounding_box()
    tab.mouse.move(box["x"] + 100, box["y"] + 120)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 160, box["y"] + 90, steps=5)
    tab.mouse.up()
    tab.wait_for_timeout(200)
    z = torch.tensor(tab.evaluate("Array.from(subo.z())"), dtype=torch.float32)
    assert not torch.equal(z, torch.tensor(tab.evaluate("Array.from(subo.meanOf(0))"), dtype=torch.float32))
    pixels = tab.evaluate(
        """Array.from(document.querySelector(".decoded canvas").getContext("2d").getImageData(0, 0, 8, 8).data)"""
    )
    experiment = open_run(out)
    context = {"label": torch.tensor([tab.evaluate("subo.state.get('label')")])} if name == "classes" else None
    mean = decode(experiment.model, z.unsqueeze(0), context)[0, 0]
    shading = tab.evaluate("subo.record.shading")
    expected = (shading["factor"] * mean + shading["shift"]).clamp(0, 1) * 255
    assert (torch.tensor(pixels, dtype=torch.float32).view(8, 8, 4)[..., 0] - expected).abs().max() <= 2
    until(tab, "location.hash.includes('z=')")
    tab.evaluate("subo.select(5)")
    until(tab, "document.querySelector('.decoded .place').textContent.includes(subo.meanOf(5)[0].toFixed(2))")
    tab.close()
    assert not faults


def test_a_ladder_has_a_picture_of_each_layer_and_a_sequence_its_forecast(opened: Any, shown: Shown):
    name, out, page = shown
    if name not in ("ladder", "waves"):
        return
    tab, faults = loaded(opened, page)
    if name == "ladder":
        assert tab.locator("#layers figcaption").all_inner_texts()[:2] == ["z2 alone", "and z1"]
        before = tab.evaluate("document.querySelector('#layers canvas').toDataURL()")
        tab.evaluate("subo.select(3)")
        assert tab.evaluate("document.querySelector('#layers canvas').toDataURL()") != before
    else:
        of, steps = (tab.evaluate(f"subo.record.examples.{name}") for name in ("sequence", "colors['time step']"))
        tab.evaluate("subo.select(1)")
        assert f"{steps[1]} of {of.count(of[1])}" in tab.inner_text("#example table")
        assert tab.evaluate(INKED) > 500
        first = tab.inner_text("#forecast figcaption")
        tab.get_by_role("button", name="Next").click()
        assert tab.inner_text("#forecast figcaption") != first
        tab.evaluate(f"subo.select({len(of) - 1})")
        source = open_run(out).data().test.rows
        assert source is not None
        assert f"row {max(of) + 1} (row {source[-1]} of all data):" in tab.inner_text("#forecast figcaption")
    tab.close()
    assert not faults


def test_numbers_and_the_exact_posterior_are_those_of_python(opened: Any, shown: Shown):
    name, out, page = shown
    if name != "digits":
        return
    tab, faults = loaded(opened, page)
    experiment = open_run(out)
    written = experiment.run.read_evaluation("test")
    lines = {line["name"]: line["value"] for line in tab.evaluate("subo.record.findings.test.numbers")}
    assert lines["log p(x)"] == written["log_px"]
    assert lines["ELBO"] == written["elbo"]
    tab.get_by_role("button", name="Exact posterior").click()
    until(tab, "document.querySelector('.inference p').textContent.includes('Exact')")
    said = tab.inner_text(".inference p")
    exact = float(re.search(r"Exact log p\(x\): (-?\d+\.\d+)", said)[1])  # pyright: ignore[reportOptionalSubscript]
    x = torch.tensor(tab.evaluate("Array.from(subo.x.values.slice(0, 64))"), dtype=torch.float32).view(1, 1, 8, 8)
    axis = torch.linspace(-6, 6, 241)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_joint = experiment.model.decode(z).log_prob(x) + experiment.model.prior().log_prob(z)
    quadrature = torch.logsumexp(log_joint.double(), 0).item() + 2 * np.log(12 / 240)
    assert exact == pytest.approx(quadrature, abs=0.02)
    tab.get_by_role("button", name="Optimize q").click()
    until(tab, "document.querySelector('.inference p').textContent.includes('300 steps')")
    after = re.search(r"KL\(q \|\| p\(z\|x\)\) = (-?[\d.]+) ± (\d+\.\d+)", tab.inner_text(".inference p"))
    assert after is not None
    assert float(after[1]) > -5 * float(after[2])
    tab.close()
    assert not faults


def test_the_slider_moves_points_to_the_recorded_means(opened: Any, shown: Shown):
    name, out, page = shown
    tab, faults = loaded(opened, page)
    if name == "digits":
        tab.locator("input[type=range]").fill("0")
        assert tab.inner_text("#training output") == "epoch 1"
        kept = np.load(sorted((out / "snapshots").glob("means-*.npy"))[0])
        np.testing.assert_allclose(tab.evaluate("subo.training.points(0)"), kept, rtol=2e-3, atol=2e-3)
        tab.get_by_role("button", name="Play").click()
        until(tab, "document.querySelector('#training output').textContent === 'epoch 2'")
    tab.close()
    assert not faults


def test_samples_of_every_prior_are_shown_beside_those_of_the_posterior(opened: Any, shown: Shown):
    """The page draws from mixtures of normals; of other priors, such as flows, it has draws of z by torch."""
    name, out, page = shown
    if name in ("ladder", "table", "waves"):  # no images, or no decoder of one latent vector
        return
    tab, faults = loaded(opened, page)
    assert tab.locator("#samples canvas").count() == 48
    if tab.evaluate("Boolean(subo.model.draws)"):
        values = tab.evaluate("subo.model.draws.map((draws) => Array.from(draws.values)).flat()")
        model = open_run(out).model
        with forked(0):
            z = prior_of(model).sample(torch.Size([240]))
        torch.testing.assert_close(torch.tensor(values, dtype=z.dtype), z.flatten(), rtol=1e-6, atol=1e-6)
    assert tab.evaluate("Boolean(subo.model.draws)") == (name in ("flow", "categories"))
    tab.close()
    assert not faults, name


@pytest.mark.slow
def test_every_button_can_be_pressed(opened: Any, shown: Shown):
    name, _, page = shown
    if name not in ("digits", "one", "flow", "table"):
        return  # as those of digits, but slowly
    tab, faults = loaded(opened, page, viewport={"width": 1000, "height": 800}, accept_downloads=True)
    for choice in tab.locator("select").all():
        for option in choice.locator("option").all():
            choice.select_option(option.get_attribute("value"))
    for button in tab.locator("button").all():
        button.click()
    tab.wait_for_timeout(300)
    link = tab.evaluate("location.hash")
    tab.close()
    assert not faults, name
    tab, faults = loaded(opened, page)
    tab.goto(f"{page.as_uri()}{link}&example=nonsense&z=1;x&nothing=3&label=9e9&axes=7,8")
    tab.goto(f"{page.as_uri()}#example=99999&z=1;2;3;4&frame=77&pins=1,2,3;4&color=nothing&back=nothing")
    tab.wait_for_timeout(200)
    tab.close()
    assert not faults, name


def test_pictures_and_paths_are_taken_away(opened: Any, shown: Shown, tmp_path: Path):
    name, out, page = shown
    if name not in ("digits", "grey"):
        return
    tab, faults = loaded(opened, page, accept_downloads=True)
    size = tab.evaluate("subo.space.size")
    first, second = [-1.0] * size, [1.5] * size
    tab.evaluate(f"subo.state.set({{pins: [{first}, {second}]}})")
    until(tab, "document.querySelectorAll('#paths .strip canvas').length === 9")
    shading, saved = tab.evaluate("subo.record.shading"), {}
    for word in ("GIF", "PNG"):
        with tab.expect_download() as found:
            tab.locator("#paths").get_by_role("button", name=word).click()
        saved[word] = tmp_path / f"path.{word.lower()}"
        found.value.save_as(saved[word])
    tab.close()
    assert not faults
    with Image.open(saved["GIF"]) as moving:
        assert (moving.n_frames, moving.size) == (46, (224, 224))  # pyright: ignore[reportAttributeAccessIssue]
        for frame, z in ((0, first), (23, second)):
            moving.seek(frame)
            shades = np.asarray(moving.convert("L"))[14::28, 14::28].astype(float)
            mean = decode(open_run(out).model, torch.tensor([z]))[0, 0]
            expected = (shading["factor"] * mean + shading["shift"]).clamp(0, 1)
            np.testing.assert_allclose(shades, 255 * expected, atol=2)
    with Image.open(saved["PNG"]) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_surprisal_and_error_are_shown_where_they_were_measured(opened: Any, shown: Shown, tmp_path: Path):
    name, out, _ = shown
    if name != "digits":
        return
    pieces, page = Run(out).pieces("test"), tmp_path / "page.html"
    pieces.mkdir(parents=True)
    plain = {"surprisal_se": 0.1, "error_se": 0.1, "elbo_se": 0.1, "num_data": 20}
    points = [{"epoch": e, "step": 15 * e, "surprisal": 30.0 - e, "error": 4.0 / e, **plain} for e in (1, 2)]
    (pieces / "training-20-100-0.json").write_text(json.dumps(points))
    try:
        assert run("report", out, "--out", page) == 0
    finally:
        shutil.rmtree(pieces.parent)
    tab, faults = loaded(opened, page, accept_downloads=True)
    gap = "#training svg.curves:nth-of-type(5)"
    assert tab.locator(f"{gap} text.title").text_content() == "-ELBO = surprisal + error"
    heights = tab.evaluate(
        f"""[...document.querySelectorAll("{gap} polyline")].map((line) => [...line.points].map((point) => point.y))"""
    )
    (first, last), (low, lower) = heights
    assert first < last < low < lower  # y points down: 33, 30, 29, 28
    assert (last - first) / (lower - low) == pytest.approx((33 - 30) / (29 - 28), rel=1e-3)
    with tab.expect_download() as found:
        tab.locator("#training").get_by_role("button", name="PNG").click()
    found.value.save_as(tmp_path / "training.png")
    place = tab.evaluate(
        f"""(() => {{
            const [svg, box] = [document.querySelector("{gap}"), document.querySelector("#training .course")];
            const [inner, outer] = [svg.getBoundingClientRect(), box.getBoundingClientRect()];
            return [inner.left - outer.left, inner.top - outer.top, inner.width, inner.height];
        }})()"""
    )
    tab.close()
    assert not faults
    with Image.open(tmp_path / "training.png") as picture:
        left, top, width, height = (round(2 * value) for value in place)
        panel = np.asarray(picture.convert("RGB"))[top : top + height, left : left + width].reshape(-1, 3).astype(int)
    assert len(np.unique(panel, axis=0)) > 20  # two lines and words, smoothed


@pytest.mark.slow
def test_a_moving_picture_is_what_was_drawn(opened: Any, shown: Shown, tmp_path: Path):
    """Noise, which makes the reader's dictionary start again, in greys and in colors."""
    name, _, page = shown
    if name != "digits":
        return
    tab, faults = loaded(opened, page)
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 6, (2, 90, 110, channels)) * 51
        pixels = np.broadcast_to(pixels, (2, 90, 110, 3))
        alpha = np.full((2, 90, 110, 1), 255)
        data = np.concatenate([pixels, alpha], -1).reshape(2, -1).tolist()
        call = """([frames]) => {
            const { gifOf } = modules["gif.js"];
            return Array.from(gifOf(frames.map((data) => new ImageData(Uint8ClampedArray.from(data), 110, 90))));
        }"""
        path = tmp_path / f"{channels}.gif"
        path.write_bytes(bytes(tab.evaluate(call, [data])))
        with Image.open(path) as moving:
            for frame in range(2):
                moving.seek(frame)
                np.testing.assert_array_equal(np.asarray(moving.convert("RGB")), pixels[frame])
    tab.close()
    assert not faults


def test_dark_is_dark(opened: Any, shown: Shown):
    _, _, page = shown
    tab, faults = loaded(opened, page, color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    tab.close()
    assert not faults

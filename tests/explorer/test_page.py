"""One file: every module is in it, after those that it imports, and what it shows stays text."""

import json
import math
import re
from importlib.resources import files

import numpy as np
import pytest
import torch

from subo.cli.report import command_of_run
from subo.explorer.numbers import Store, packed
from subo.explorer.page import MODULES, page, script
from subo.runs.run import Run

STATIC = files("subo.explorer") / "static"


def test_every_module_is_in_the_page_after_those_that_it_imports():
    assert {path.name for path in STATIC.iterdir() if path.name.endswith(".js")} == set(MODULES)
    for position, name in enumerate(MODULES):
        text = (STATIC / name).read_text()
        imported = re.findall(r'^import \{[^}]*\} from "\./(.*)";$', text, re.MULTILINE)
        assert len(imported) == text.count("\nimport ") + text.startswith("import ")
        assert all(MODULES.index(other) < position for other in imported), name
        assert len(text.splitlines()) <= 350
        assert "eval(" not in text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"^(import|export) ", script(), re.MULTILINE)


def test_markup_in_a_record_stays_text():
    record = {"run": "</title><script>alert(1)</script>", "name": "</script><img src=x>{{SCRIPT}}"}
    text = page(record)
    assert "<img" not in text
    assert "<script>alert" not in text
    shown = re.search(r'id="record">(.*?)</script>', text, re.DOTALL)
    assert shown is not None
    assert json.loads(shown[1]) == record
    assert "connect-src 'none'" in text
    assert "connect-src 'self'" in page(record, live=True)


def test_numbers_that_half_precision_does_not_hold_are_kept_in_single():
    store = Store()
    assert store.add(torch.ones(3)) == ["f16", 0]
    assert store.add(torch.tensor([7e4])) == ["f32", 0]
    assert store.add(torch.ones(2), exact=True) == ["f32", 1]
    assert store.add(torch.ones(1)) == ["f16", 3]
    assert {name: array["shape"] for name, array in store.as_json().items()} == {"f16": [4], "f32": [3]}


def test_a_packed_array_is_little_endian():
    import base64

    array = np.array([[1.5, -math.inf], [0.1, 2.0]])
    stored = packed(array)
    found = np.frombuffer(base64.b64decode(stored["base64"]), "<f4").reshape(stored["shape"])
    np.testing.assert_array_equal(found, array.astype(np.float32))


@pytest.mark.parametrize("older", ["grey"])
def test_the_shown_command_names_settings_that_are_not_the_default(older: str, request: pytest.FixtureRequest):
    run = Run(request.config.rootpath / "tests" / "runs-of-0.1" / older)
    words = command_of_run(run.read_config(), run.path).split()
    assert words[:3] == ["subo", "fit", "digits"]
    assert "--latent-dim" in words
    assert "--optimizer" not in words

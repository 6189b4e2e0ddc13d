"""The server beside the page: what it answers, to whom, and what it refuses."""

import json
import random
import socket
import string
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import uvicorn
from torch.testing import assert_close

import subo
from command_line import run
from subo.experiments.experiment import open_latest, open_run
from subo.explorer.server import Explorer, application
from subo.runs.run import Run

pytestmark = pytest.mark.slow

SMALL = ["--latent-dim", 2, "--hidden", 8, "--epochs", 2, "--evaluation-samples", 10, "--binarize", "dynamic"]


class Answer(NamedTuple):
    status_code: int
    text: str
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """Requests to a server that listens on a port."""

    def __init__(self, port: int):
        self.port = port

    def request(self, method: str, path: str, *, content: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=content or None, headers=headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read().decode(), found)
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, json_body: Any = None, *, content: bytes | None = None) -> Answer:
        return self.request("POST", path, content=json.dumps(json_body).encode() if content is None else content)


@contextmanager
def listening(explorer: Explorer) -> Iterator[Client]:
    """The real server, in a thread."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
        hosts = frozenset({f"127.0.0.1:{port}"})
        server = uvicorn.Server(uvicorn.Config(application(explorer, hosts=hosts), log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [own]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Client(port)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    out = tmp_path_factory.mktemp("served") / "run"
    assert run("fit", "digits", "--out", out, *SMALL, "--quiet") == 0
    experiment = open_run(out)
    return Explorer.of(experiment, experiment.data())


@pytest.fixture(scope="module")
def client(served: Explorer) -> Iterator[Client]:
    with listening(served) as opened:
        yield opened


def test_the_page_is_served_with_the_live_model(client: Client, served: Explorer):
    answer = client.get(f"/{served.token}/")
    assert answer.status_code == 200
    assert "connect-src 'self'" in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    z = [[0.5, -1.0], [2.0, 0.0]]
    means = client.post(f"/{served.token}/decode", json_body={"z": z}).json()["means"]
    assert_close(torch.tensor(means), served.decoded(torch.tensor(z), None), rtol=1e-5, atol=1e-6)
    course = client.get(f"/{served.token}/course").json()
    assert course["finished"] is True
    assert course["course"]["epochs"] == [1, 2]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/wrong/", {}),
        ("/{token}/", {"host": "example.com"}),
        ("/{token}/", {"host": "127.0.0.1:9"}),
        ("/{token}/", {"origin": "http://example.com"}),
        ("/{token}/", {"origin": "null"}),
    ],
)
def test_others_are_refused(client: Client, served: Explorer, path: str, headers: dict[str, str]):
    answer = client.get(path.format(token=served.token), headers=headers)
    assert answer.status_code == 403
    assert served.token not in answer.text
    assert "decoder" not in answer.text


def test_nonsense_gets_an_answer_and_never_a_traceback(client: Client, served: Explorer):
    source = random.Random(0)
    bodies: list[Any] = [
        *(None, 1, "x", [], {}, {"z": []}, {"z": [[1]]}, {"z": [[1, 2, 3]]}, {"z": [[1, "a"]]}, {"z": [[True, False]]}),
        *({"z": [[1e300, 0]]}, {"z": [[0, 0]] * 2001}, {"z": [[0, 0]], "label": 3}, {"z": [[0, 0]], "label": "x"}),
    ]
    for k in range(500):
        path = source.choice(["decode", "course", "", "..", "decode/", "%2e%2e/etc", "a" * 300])
        method = source.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
        if source.random() < 0.5:
            content = "".join(source.choices(string.printable, k=source.randrange(200))).encode()
        else:
            content = b'{"z": [[NaN, 1]]}' if k % 7 == 0 else repr(source.choice(bodies)).replace("'", '"').encode()
        answer = client.request(method, f"/{served.token}/{path}", content=content)
        assert answer.status_code in (200, 400, 403, 404, 405, 307), (method, path, content, answer.status_code)
        assert "Traceback" not in answer.text
    for body in bodies[:-1]:
        assert client.post(f"/{served.token}/decode", json_body=body).status_code == 400
    assert client.post(f"/{served.token}/decode", content=b"x" * 200_001).json() == {
        "error": "a request may have 200,000 bytes"
    }
    assert client.post(f"/{served.token}/decode", content=b"[" * 100_000).status_code == 400


def test_the_run_folder_is_never_written(client: Client, served: Explorer):
    path = served.experiment.run.path
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    client.get(f"/{served.token}/")
    client.get(f"/{served.token}/course")
    client.post(f"/{served.token}/decode", json_body={"z": [[0, 0]]})
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_a_fit_that_has_not_ended_is_shown_by_its_last_weights(served: Explorer, tmp_path: Path):
    copy = tmp_path / "running"
    for file in served.experiment.run.path.rglob("*"):
        if file.is_file() and file.name not in ("model.safetensors", "evaluation.json"):
            place = copy / file.relative_to(served.experiment.run.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    assert Run(copy).kept_epochs()
    experiment = open_latest(copy)
    explorer = Explorer.of(experiment, experiment.data())
    with listening(explorer) as client:
        assert client.get(f"/{explorer.token}/course").json()["finished"] is False
    for file in (copy / "snapshots").glob("weights-*"):
        file.unlink()
    assert run("explore", copy, "--no-browser") == 2


def test_a_run_shows_its_page_in_a_notebook(served: Explorer):
    shown = served.experiment.explore(height=500)
    assert shown.html == subo.explore(served.experiment.run.path).html
    assert "height:500px" in shown._repr_html_()

"""A server beside the page: it decodes with the model itself, and follows a fit that is running.

It answers this machine alone, to those who know a random word in its address, and reads the run without ever writing
to it. Only one computation runs at a time; one that a later request of the same kind has overtaken is given up.
"""

import asyncio
import hmac
import json
import math
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from subo.errors import InputError
from subo.evaluation.reconstruction import decode
from subo.explorer.course import course_record
from subo.explorer.page import page
from subo.explorer.record import record_of
from subo.parts.labels import num_labels_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from subo.data.dataset import Data
    from subo.experiments.experiment import Experiment

__all__ = ["Explorer", "application", "serve"]

_BODY, _POINTS = 200_000, 2_000  # bytes of a request, points decoded for one
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass
class Explorer:
    """What is served: the page of a run, and its live model.

    Attributes:
        experiment: The run.
        data: Its data.
        text: The page.
        latents: Number of latents of a point that may be decoded; None if z is not one vector.
        token: The word in the address.
    """

    experiment: "Experiment"
    data: "Data"
    text: str
    latents: int | None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @classmethod
    def of(cls, experiment: "Experiment", data: "Data", *, split: str = "test", command: str = "") -> "Explorer":
        """The explorer of a run; the options are those of :func:`~subo.explorer.record.record_of`."""
        record = record_of(experiment, data, split=split, command=command)
        layers = record["examples"]["latents"]["layers"]
        latents = len(record["examples"]["latents"]["names"]) if len(layers) == 1 and not data.sequential else None
        return cls(experiment, data, page(record, live=True), latents)

    def decoded(self, z: Tensor, label: int | None) -> Tensor:
        """``E[x|z]``, flat, of points ``(N, D)``."""
        context = None if label is None else {"label": torch.full((len(z),), label)}
        return decode(self.experiment.model, z, context).flatten(1)


def application(explorer: Explorer, *, hosts: frozenset[str]) -> "Starlette":
    """The application that answers requests.

    Args:
        explorer: What is served.
        hosts: The values of the header Host that are this server's own.
    """
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Route

    turns = _Turns()

    def guarded(answer: Callable[["Request"], Awaitable["Response"]]) -> Callable[["Request"], Awaitable["Response"]]:
        async def guard(request: "Request") -> "Response":
            if (refusal := _refusal(request, explorer.token, hosts)) is not None:
                return JSONResponse({"error": refusal}, status_code=403, headers=_HEADERS)
            try:
                response = await answer(request)
            except InputError as error:
                response = JSONResponse({"error": str(error)}, status_code=400)
            response.headers.update(_HEADERS)
            return response

        return guard

    async def shown(request: "Request") -> "Response":
        return HTMLResponse(explorer.text)

    async def course(request: "Request") -> "Response":
        record = await asyncio.to_thread(course_record, explorer.experiment.run, explorer.data)
        return JSONResponse({"course": record, "finished": explorer.experiment.run.model.exists()})

    async def decoded(request: "Request") -> "Response":
        z, label = _points(await _body(request), explorer)
        means = await turns.take("decode", lambda: explorer.decoded(z, label))
        if means is None:
            return JSONResponse({"error": "a later request came"}, status_code=409)
        return JSONResponse({"means": [[_plain(value) for value in row] for row in means.tolist()]})

    routes = [
        Route("/{token}/", guarded(shown)),
        Route("/{token}/course", guarded(course)),
        Route("/{token}/decode", guarded(decoded), methods=["POST"]),
    ]
    return Starlette(routes=routes)


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


class _Turns:
    """One computation at a time, in a thread of its own; of each kind the latest request wins."""

    def __init__(self):
        self.lock, self.latest = asyncio.Lock(), dict[str, int]()

    async def take(self, kind: str, compute: Callable[[], Tensor]) -> Tensor | None:
        """The result, or None if another request of this kind came while it waited."""
        number = self.latest[kind] = self.latest.get(kind, 0) + 1
        async with self.lock:
            if number < self.latest[kind]:
                return None
            return await asyncio.to_thread(compute)


def _refusal(request: "Request", token: str, hosts: frozenset[str]) -> str | None:
    """Why a request is not answered: it comes from another page, or by another name of this machine."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if host not in hosts:
        return "this server answers to its own name alone"
    if origin is not None and origin != f"http://{host}":
        return "requests from other pages are refused"
    if not hmac.compare_digest(request.path_params["token"].encode(), token.encode()):
        return "the address has a wrong word: use the one that was printed"
    return None


async def _body(request: "Request") -> Any:
    """The JSON of a request, if it is not too long."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _BODY:
            raise InputError(f"a request may have {_BODY:,} bytes")
        parts.append(part)
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise InputError("a request is JSON in UTF-8") from error


def _points(asked: Any, explorer: Explorer) -> tuple[Tensor, int | None]:
    """Points of latent space and the class at which they are decoded."""
    if explorer.latents is None:
        raise InputError("this model has no single vector z to decode")
    rows: Any = asked.get("z") if isinstance(asked, dict) else None
    fits = isinstance(rows, list) and 0 < len(rows) <= _POINTS
    if not fits or not all(_is_point(row, explorer.latents) for row in rows):
        raise InputError(f"z is a list of at most {_POINTS:,} points of {explorer.latents} finite numbers each")
    label = asked.get("label")
    classes = num_labels_of(explorer.experiment.model) or 0
    if label is not None and not (type(label) is int and 0 <= label < classes):
        raise InputError(f"label is the number of one of the {classes} classes that the model is conditioned on")
    return torch.tensor(rows, dtype=torch.get_default_dtype()), label


def _is_point(row: Any, size: int) -> bool:
    return (
        isinstance(row, list)
        and len(row) == size
        and all(type(value) in (int, float) and abs(value) < 1e6 for value in row)
    )


def serve(explorer: Explorer, *, port: int = 0, ready: Callable[[str], object] | None = None) -> None:
    """Serves the page on 127.0.0.1 until it is stopped.

    Args:
        explorer: What is served.
        port: Port; 0 takes a free one.
        ready: Called with the address once it can be opened.

    Raises:
        InputError: The port is taken, or the extra ``subo[explore]`` is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise InputError("explore needs starlette and uvicorn: pip install 'subo[explore]'") from error
    own = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind(("127.0.0.1", port))
    except OSError as error:
        own.close()
        raise InputError(f"port {port} cannot be used ({error.strerror}): give another `port`, or 0") from error
    with own:
        port = own.getsockname()[1]
        hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        config = uvicorn.Config(application(explorer, hosts=hosts), log_level="error", access_log=False)
        if ready is not None:
            ready(f"http://127.0.0.1:{port}/{explorer.token}/")
        uvicorn.Server(config).run(sockets=[own])

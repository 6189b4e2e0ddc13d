"""One page of HTML that opens anywhere: its modules, its style and what it shows lie in one file."""

import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

__all__ = ["MODULES", "page", "script"]

MODULES = (
    *("numbers.js", "network.js", "families.js", "prior.js", "model.js", "posterior.js", "space.js"),
    *("state.js", "colors.js", "layout.js", "axes.js", "save.js", "live.js", "paint.js", "backgrounds.js"),
    *("plane.js", "example.js", "training.js", "traversals.js", "gif.js", "paths.js", "board.js", "rowform.js"),
    *("own.js", "layers.js", "forecasts.js", "draws.js", "findings.js", "beside.js", "main.js"),
)
"""The page's modules in the order of their imports."""

_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(.*)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src {connect}; form-action 'none'; base-uri 'none'"
)


def page(record: dict[str, Any], *, live: bool = False) -> str:
    """The page.

    Modules are joined into one script, since a file opened by a double click may not import others.

    Args:
        record: What it shows, from :func:`subo.explorer.record.record_of`.
        live: Whether a server is there to be asked; otherwise the page asks for nothing.
    """
    shown = json.dumps(record, separators=(",", ":"), allow_nan=False)
    slots = {
        "TITLE": escape(f"{record['run']}: subo"),
        "POLICY": _POLICY.format(connect="'self'" if live else "'none'"),
        "STYLE": _static("style.css"),
        "RECORD": shown.replace("<", "\\u003c"),  # markup in names of columns and classes stays text
        "SCRIPT": script(),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: slots[match[1]], _static("page.html"))


def script(modules: Sequence[str] = MODULES) -> str:
    """The modules as one script, whose constant `modules` has what each exports.

    Args:
        modules: Names of files, each after those that it imports.
    """
    scopes = "\n".join(_scope(name, _static(name)) for name in modules)
    return f'"use strict";\nconst modules = {{}};\n{scopes}'


def _static(name: str) -> str:
    return (files("subo.explorer") / "static" / name).read_text(encoding="utf-8")


def _scope(name: str, text: str) -> str:
    """A module as a function that is called once: its imports are constants, its exports what it returns."""
    exports = ", ".join(match[1] for match in _EXPORT.finditer(text))
    body = _EXPORT.sub("", _IMPORT.sub(r'const \1 = modules["\2"];\n', text))
    return f'modules["{name}"] = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();'

"""Fit, measure and explore deep latent-variable models by variational inference."""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subo import plot as plot
    from subo.public import *  # noqa: F403  # pyright: ignore[reportWildcardImportFromLibrary]

    __version__: str


def __getattr__(name: str) -> Any:
    """Imports the library when a name of it is asked for: in the seconds that it takes, a command obeys signals."""
    if name == "__version__":
        return version("subo")
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'subo' has no attribute '{name}'")
    module = f"subo.{name}"
    return import_module(module) if find_spec(module) else getattr(import_module("subo.public"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("subo.public").__all__, "plot"})

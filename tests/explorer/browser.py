"""A real browser for tests of the page: Chromium, driven by Playwright; without it they are skipped."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


_PATIENCE = 120_000  # milliseconds: other tests take their share of the machine


@contextmanager
def browser() -> Iterator[Any]:
    """A browser without a window."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=_PATIENCE)
        try:
            yield opened
        finally:
            opened.close()


def silent(page: Any) -> list[str]:
    """What a page must not do: a list that grows with errors of its console and with requests to elsewhere."""
    page.set_default_timeout(_PATIENCE)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "data:", "blob:", "about:")) else faults.append(asked.url),
    )
    return faults


def until(page: Any, expression: str, *, seconds: float = 120) -> None:
    """Waits until an expression is true. (Playwright's own way is forbidden by the page's content security policy.)"""
    for _ in range(int(20 * seconds)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not true after {seconds} s: {expression}")

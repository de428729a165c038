"""Headless Chromium for the tests of pages: no network, and nothing said on the console.

A test asks for ``open_page`` and gets a function ``open_page(path, width=..., dark=..., touch=...) -> Page`` of
Playwright's. After the test it fails if a page said anything on the console, raised an error, or asked for anything
but its own file.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--disable-gpu", "--disable-quic"]  # Playwright's own leave the profile empty and the background silent


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """The browser of one file of tests; they are skipped on a machine without Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium, as of `apt-get install chromium`")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Opens files in windows of their own: ``open_page(path, width=1280, height=900, dark=False, touch=False)``."""
    contexts, complaints = [], []

    def open_file(path: Path, width: int = 1280, height: int = 900, dark: bool = False, touch: bool = False):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            is_mobile=touch,
            offline=True,
        )
        contexts.append(context)
        page, url = context.new_page(), path.resolve().as_uri()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.extend(foreign(request.url, url)))
        page.goto(url)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not complaints, complaints


def foreign(asked: str, own: str) -> list[str]:
    """What a page asks for that is neither itself, a file beside it, nor written in it."""
    folder = own.rpartition("/")[0]
    return [] if asked.startswith((folder, "data:", "blob:")) else [f"the page asks for {asked}"]

"""A browser for tests of the report: Debian's Chromium, driven by Playwright."""

import contextlib
import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def launched():
    """The browser; skips the test where there is none, and fails it there with CI=true.

    Playwright's event loop runs in this thread until the end: no other loop can, so that a browser
    must not outlive the module that uses it.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        end = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        end(f"there is no browser ({', '.join(NAMES)}): apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that root in a container lacks.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()

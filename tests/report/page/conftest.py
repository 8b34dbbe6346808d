"""A browser for the tests of the page: Debian's Chromium, driven by Playwright, once a session."""

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SETTLED = "() => document.body.dataset.settled === location.hash"


@pytest.fixture(scope="session")
def browser():
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        end = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        end(f"there is no browser ({', '.join(NAMES)}): apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that root in a container lacks.
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


class Tab:
    """One page in the browser; `problems` are its errors and its requests to elsewhere."""

    def __init__(self, browser, path, *, width=1400, dark=False):
        self.path = path
        self.page = browser.new_page(
            viewport={"width": width, "height": 844},
            color_scheme="dark" if dark else "light",
        )
        self.page.set_default_timeout(10_000)
        self.problems = []
        self.page.on("console", lambda said: self.problems.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._requested)

    def _requested(self, request):
        if not request.url.startswith(f"file://{self.path}"):
            self.problems.append(f"requested {request.url}")

    def open(self, hash=""):
        """Go to a place of the page, and wait until all of it is shown."""
        self.page.goto(f"file://{self.path}{hash}")
        self.settle()

    def settle(self):
        self.page.wait_for_function(SETTLED)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def click(self, selector):
        self.page.click(selector)
        self.settle()

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def text(self, selector):
        return self.page.inner_text(selector)

    @property
    def hash(self):
        return self.page.evaluate("location.hash")

    def close(self):
        self.page.close()
        assert self.problems == []


@pytest.fixture
def tab(browser):
    """Opens tabs; at the test's end none may have an error or a request to elsewhere."""
    opened = []

    def open_tab(path, hash="", **options):
        opened.append(Tab(browser, path, **options))
        opened[-1].open(hash)
        return opened[-1]

    yield open_tab
    for each in opened:
        each.close()

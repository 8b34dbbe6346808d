"""Tabs of the browser that show a page, and remember what went wrong in it."""

import time

import pytest

from tests import browsers

SETTLED = "() => document.body.dataset.settled === location.hash"


@pytest.fixture(scope="module")
def browser():
    with browsers.launched() as browser:
        yield browser


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
        # Not `wait_for_function`: it evaluates in the page, whose security policy forbids that.
        end = time.monotonic() + 10
        while not self.page.evaluate(SETTLED):
            assert time.monotonic() < end, f"{self.hash} is not shown after 10 seconds"
            self.page.wait_for_timeout(10)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.settle()  # an arrow moves through the steps of an attempt that is shown

    def click(self, selector):
        self.page.click(selector)
        self.settle()

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def text(self, selector):
        return self.page.inner_text(selector).replace("\N{NO-BREAK SPACE}", " ")

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

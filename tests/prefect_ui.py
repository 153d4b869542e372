"""The Prefect UI in a real browser, as whoever runs the nightly sees it."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parts import require_part
from playwright.sync_api import Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser")
STEP_S = 60
"""For what the UI does at once on a quiet machine."""


class PrefectUI:
    """One page of the UI, driven by what is written on it."""

    def __init__(self, page: Page, url: str, screenshots: Path) -> None:
        self.page = page
        self.url = f"{url}/v2"
        self.screenshots = screenshots

    def shoot(self, name: str) -> Path:
        """Keep what is seen now."""
        path = self.screenshots / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def open_form(self, deployment: str) -> None:
        """Open the form of a deployment, as from its page: Run, Custom run."""
        self.page.goto(f"{self.url}/deployments/deployment/{deployment}")
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.page.get_by_text("repos_root (Optional)", exact=True).wait_for()

    def add_items(self, items: list[str]) -> None:
        """Fill the first list of the form."""
        for number, item in enumerate(items):
            self.page.get_by_role("button", name="Add item").first.click()
            self.page.locator("main textarea").nth(number).fill(item)

    def submit(self) -> str:
        """Submit the form, and go to the run that it has made; its id."""
        deadline = time.monotonic() + 3 * STEP_S
        view = self.page.get_by_role("link", name="View run")
        while not view.is_visible():  # a busy server answers 503 (SQLite is locked), and one click after that is lost
            assert time.monotonic() < deadline, self.read()
            self.page.get_by_role("button", name="Submit").click()
            with suppress(PlaywrightTimeout):
                view.wait_for(timeout=15_000)
        view.click()
        self.page.wait_for_url(re.compile("/runs/flow-run/"))
        return self.page.url.split("/flow-run/")[1][:36]

    def open_run(self, run_id: str, tab: str) -> None:
        """Open the page of a flow run at one of its tabs: `Details`, `TaskRuns`, `Artifacts`, ..."""
        self.page.goto(f"{self.url}/runs/flow-run/{run_id}?tab={tab}")

    def open_task(self, task_run_id: str) -> None:
        """Open the page of a task run at its logs, whose last line is the message of its state."""
        self.page.goto(f"{self.url}/runs/task-run/{task_run_id}?tab=Logs")

    def menu(self, item: str) -> Locator:
        """Choose from the page's menu; the dialog that it opens."""
        self.page.get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()
        return self.page.get_by_role("dialog").or_(self.page.get_by_role("alertdialog"))

    def wait_for_text(self, text: str, within_s: float = STEP_S) -> None:
        """Wait until something is written on the page, which is loaded anew now and then: not all of it follows."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                self.page.get_by_text(text).first.wait_for(timeout=8_000)
            except PlaywrightTimeout:
                assert time.monotonic() < deadline, f"{text!r} is not on the page:\n{self.read()}"
                self.page.reload()
            else:
                return

    def read(self) -> str:
        """All that is written on the page."""
        return self.page.locator("main").inner_text()


@contextmanager
def open_ui(url: str, screenshots: Path) -> Iterator[PrefectUI]:
    """A headless Chromium at the UI; skips the test where there is none (tests/parts.py)."""
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    require_part("Chromium", present=bool(found), how="apt-get install chromium-headless-shell")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=found[0]) as browser:
        context = browser.new_context(locale="en-US", timezone_id="UTC", viewport={"width": 1280, "height": 860})
        context.set_default_timeout(STEP_S * 1000)
        context.route(re.compile("amplitude"), lambda route: route.abort())
        yield PrefectUI(context.new_page(), url, screenshots)

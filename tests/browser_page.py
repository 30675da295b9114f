"""The test page in a real browser: Debian's Chromium, headless, driven as a user would.

Whatever the page writes to its console, any error and any request that leaves its server fails the
test that has it open.
"""

import contextlib

from playwright.sync_api import expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
TIMEOUT_MS = 60_000
expect.set_options(timeout=TIMEOUT_MS)


@contextlib.contextmanager
def browser():
    with sync_playwright() as playwright:
        # Its sandbox can't be made by root in a container; it shows our own pages only.
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield found
        finally:
            found.close()


@contextlib.contextmanager
def opened(browser, url, **options):
    """The page, not logged in."""
    with contextlib.ExitStack() as held:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        held.callback(context.close)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        found = TestPage(page, url)
        page.goto(f"{url}/test")
        yield found
        assert found.complaints == []


class TestPage:
    """What a user does there. `page` is Playwright's."""

    __test__ = False

    def __init__(self, page, url):
        self.page = page
        self.complaints = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._said)
        page.on("request", lambda request: self._asked(request, url))

    def _said(self, message):
        # Answers that are no success are shown by the page; the browser notes them, too.
        if "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _asked(self, request, url):
        if not request.url.startswith(url):
            self.complaints.append(f"asked {request.url}")

    def at(self, selector):
        return self.page.locator(selector)

    def see(self, selector):
        """For what is to be seen in time: `see(...).to_have_text(...)`."""
        return expect(self.at(selector), f"{selector} of the page")

    def log_in(self, key):
        self.page.fill("#key", key)
        self.page.press("#key", "Enter")

    def last_operation(self, name):
        """The newest one, when it has ended: its result."""
        row = self.at("#operations li").first
        expect(row).to_have_attribute("data-operation", name, timeout=TIMEOUT_MS)
        expect(row).not_to_have_attribute("data-result", "running", timeout=4 * TIMEOUT_MS)
        return row.get_attribute("data-result")

    def phases(self):
        """The names in the newest operation's bar."""
        pieces = self.at("#operations > li").first.locator(".phases span")
        titles = [piece.get_attribute("title") for piece in pieces.all()]
        assert all(piece.bounding_box()["width"] > 0 for piece in pieces.all())
        return [title.partition(":")[0] for title in titles]

    def run(self, text):
        """Run a command to its end: what is shown, and its exit code."""
        self.page.fill("#command", text)
        self.page.press("#command", "Enter")
        self.see("#run").to_be_enabled(timeout=TIMEOUT_MS)
        return self.at("#output").inner_text(), self.at("#exec-result").get_attribute("data-code")

    def answer(self, dialog, button):
        self.page.click(f"{dialog} button:has-text('{button}')")

    def whole_life(self, *, leaves=0):
        """A sandbox from its creation to its end, with a snapshot; yields at what may be seen.

        leaves: how many others there are.
        """
        page = self.page
        page.click("#create-button")
        assert self.last_operation("create") == "done"
        assert self.phases()
        yield "created"
        self.see("#detail-state").to_have_text("running")
        shown, code = self.run("echo to-stdout; echo to-stderr >&2; exit 3")
        assert "to-stdout" in shown
        assert "to-stderr" in shown
        assert code == "3"
        self.see("#output .stderr").to_have_text("to-stderr\n")
        yield "ran"
        page.fill("#command", "echo before; sleep 1000")
        page.press("#command", "Enter")
        expect(self.at("#output")).to_contain_text("before\n")  # while it runs
        page.click("#stop")
        self.see("#exec-result").to_have_attribute("data-code", "137")
        for name, state in (("pause", "paused"), ("resume", "running")):
            page.click(f"#{name}")
            assert self.last_operation(name) == "done"
            assert self.phases()
            self.see("#detail-state").to_have_text(state)
            yield state
        page.click("#snapshot")
        page.fill("#snapshot-name", "golden")
        page.press("#snapshot-name", "Enter")
        assert self.last_operation("snapshot") == "done"
        self.see("#detail-state").to_have_text("paused")
        self.see("#templates tr[data-name=golden]").to_be_visible()
        yield "frozen"
        page.click("#templates tr[data-name=golden] button")
        self.answer("#confirm-dialog", "Delete")
        assert self.last_operation("delete snapshot") == "done"
        self.see("#templates tr[data-name=golden]").to_have_count(0)
        page.click("#destroy")
        self.answer("#confirm-dialog", "Destroy")
        assert self.last_operation("destroy") == "done"
        self.see("#boxes li").to_have_count(leaves)
        self.see("#detail").to_be_hidden()
        yield "destroyed"

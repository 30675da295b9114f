"""The test page in a real browser, over the control plane with a fake host."""

import contextlib

import pytest
from playwright.sync_api import expect

import browser_page
from control_plane import control_plane
from wrennd.core.errors import NoCapacity


@pytest.fixture(scope="module")
def browser():
    with browser_page.browser() as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture
def server(shared):
    """Without sandboxes before and after: the page shows all that there is."""
    yield shared
    for box in shared.api.get("/v1/sandboxes").json()["sandboxes"]:
        shared.api.delete(f"/v1/sandboxes/{box['id']}")


@pytest.fixture
def page(browser, server):
    with browser_page.opened(browser, server.url) as found:
        yield found


@pytest.fixture
def logged_in(page, server):
    page.log_in(server.key)
    page.see("#app").to_be_visible()
    return page


def test_a_sandbox_s_whole_life(logged_in):
    assert list(logged_in.whole_life())[-1] == "destroyed"


def test_a_key_that_does_not_count_is_told(page):
    page.log_in("e2b_" + "0" * 40)
    page.see("#login-failure").not_to_be_empty()
    page.see("#app").to_be_hidden()


def test_the_key_lives_as_long_as_the_tab(logged_in, server):
    logged_in.page.reload()
    logged_in.see("#app").to_be_visible()
    logged_in.page.click("#logout")
    logged_in.page.reload()
    logged_in.see("#login").to_be_visible()
    assert server.key not in logged_in.page.content()


def test_the_list_changes_by_itself(logged_in, server):
    logged_in.see("#boxes-empty").to_be_visible()
    made = server.create()
    row = f"#boxes [data-id='{made}']"
    logged_in.see(f"{row} .chip").to_have_text("running")
    server.api.post(f"/v1/sandboxes/{made}/pause")
    logged_in.see(f"{row} .chip").to_have_text("paused")
    server.api.delete(f"/v1/sandboxes/{made}")
    logged_in.see(row).to_have_count(0)


def test_a_failure_is_shown_with_its_reason(logged_in, server):
    made = server.create()
    logged_in.page.click(f"#boxes [data-id='{made}']")
    logged_in.see("#pause").to_be_enabled()
    server.agent.fail("pause_sandbox", NoCapacity("the disk is full", hint="make room"))
    logged_in.page.click("#pause")
    assert logged_in.last_operation("pause") == "failed"
    logged_in.see("#operations .failure").to_contain_text("the disk is full")


def test_keys_are_enough(logged_in):
    keys = logged_in.page.keyboard
    page = logged_in.page
    page.evaluate("document.activeElement.blur()")
    keys.press("n")
    expect(page.locator("#template")).to_be_focused()
    for _ in range(3):
        keys.press("Tab")
    keys.press("Enter")
    assert logged_in.last_operation("create") == "done"
    logged_in.see("#detail-state").to_have_text("running")
    page.evaluate("document.activeElement.blur()")
    keys.press("/")
    keys.type("echo typed")
    keys.press("Enter")
    expect(page.locator("#output")).to_contain_text("typed\n")
    logged_in.see("#exec-result").to_have_attribute("data-code", "0")
    page.evaluate("document.activeElement.blur()")
    keys.press("p")
    assert logged_in.last_operation("pause") == "done"
    keys.press("d")
    logged_in.see("#confirm-dialog").to_be_visible()
    keys.press("Escape")
    logged_in.see("#confirm-dialog").to_be_hidden()
    logged_in.see("#boxes li").to_have_count(1)
    keys.press("ArrowDown")
    expect(page.locator("#boxes button")).to_be_focused()


def test_a_dialog_that_has_just_closed_takes_no_keys(logged_in, server):
    """The focus leaves what is hidden with the next frame only: a key may come before."""
    made = server.create()
    logged_in.page.click(f"#boxes [data-id='{made}']")
    logged_in.page.click("#destroy")
    logged_in.see("#confirm-dialog").to_be_visible()
    logged_in.page.evaluate("""() => {
        const dialog = document.getElementById("confirm-dialog");
        const inside = dialog.querySelector("button");
        dialog.close("");
        inside.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
    }""")
    expect(logged_in.page.locator(f"#boxes [data-id='{made}']")).to_be_focused()


def test_dark_and_light(browser, server):
    grounds = set()
    for scheme in ("light", "dark"):
        with browser_page.opened(browser, server.url, color_scheme=scheme) as page:
            colour = "getComputedStyle(document.body).backgroundColor"
            grounds.add(page.page.evaluate(colour))
    assert len(grounds) == 2


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out(logged_in, server, width):
    made = server.create()
    logged_in.page.set_viewport_size({"width": width, "height": 800})
    logged_in.page.click(f"#boxes [data-id='{made}']")
    logged_in.see("#detail").to_be_visible()
    wide = "document.documentElement.scrollWidth"
    assert logged_in.page.evaluate(wide) <= width
    whole = (
        "[...document.querySelectorAll('.box')].every(box => box.scrollWidth <= box.clientWidth)"
    )
    assert logged_in.page.evaluate(whole)


def test_the_policy_forbids_what_the_page_does_not_need(server):
    answer = server.anonymous.get("/test")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    for name in ("app.js", "style.css", "icon.svg"):
        assert server.anonymous.get(f"/test/{name}").status_code == 200
    assert server.anonymous.get("/test/__init__.py").status_code == 404
    assert server.anonymous.get("/", follow_redirects=True).url.path == "/test"


def test_a_page_without_its_server_says_so(browser, tmp_path):
    with contextlib.ExitStack() as held:
        stack = held.enter_context(contextlib.ExitStack())
        server = stack.enter_context(control_plane(tmp_path))
        page = held.enter_context(browser_page.opened(browser, server.url))
        page.log_in(server.key)
        page.see("#app").to_be_visible()
        stack.close()
        page.see("#link").to_contain_text("does not answer")

"""The live page in Chromium: figures move, a swap and a roll-out by click, a gNB that was away, keyboard, phone, token.

Where Chromium is not installed, these tests are skipped; `apt install chromium` brings it.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Spawn, get, ready, wait_for
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 120_000  # a limit only against hanging for ever
UES = 4
NUMBERS = re.compile(r"\d")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)"),
]


@dataclass
class Visit:
    """A page, and what its visitors should not see.

    Attributes:
        problems: errors on the console and in scripts.
        hosts: that something was asked of.
    """

    page: Page
    rest: str
    problems: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def go(self, place: str = "") -> Page:
        """To a view, `#ues/3`, or another path."""
        self.page.goto(f"http://{self.rest}/{place}")
        return self.page

    def check(self) -> None:
        assert self.problems == []
        assert self.hosts == {self.rest}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@dataclass
class Gnb:
    """A gNB process that can be started again where it was."""

    spawn: Spawn
    folder: Path
    options: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.folder / "ready.json").unlink(missing_ok=True)
        self.process = self.spawn("gnb_server", **self.options)
        ready(self.folder / "ready.json")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def rest(self) -> str:
        return f"127.0.0.1:{self.options['rest_port']}"

    def ues(self, scheme: str, ues: int = UES, **others: Any) -> None:
        """UEs that send for as long as the test is."""
        grpc = f"127.0.0.1:{self.options['grpc_port']}"
        self.spawn("ue_client", **{"gnb": grpc, "scheme": scheme, "ues": ues, "rate": 10, **others})


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(found.getsockname()[1]) for found in sockets]
    for found in sockets:
        found.close()
    return ports


@pytest.fixture
def gnb(spawn: Spawn, tmp_path: Path) -> Gnb:
    grpc_port, rest_port = free_ports(2)
    options = {"grpc_port": grpc_port, "rest_port": rest_port, "window_s": 2}
    options |= {"store": f"sqlite:///{tmp_path / 'gnb.sqlite'}", "ready_file": tmp_path / "ready.json"}
    running = Gnb(spawn, tmp_path, options)
    running.start()
    return running


@pytest.fixture
def visit(browser: Browser, gnb: Gnb) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield Visit(context.new_page(), gnb.rest)
    context.close()


def figures(page: Page, name: str, column: int) -> Any:
    """A cell of the table of schemes and versions."""
    return page.locator("#figures tbody tr").filter(has_text=name).locator("td").nth(column - 1)


def test_figures_move(gnb: Gnb, visit: Visit) -> None:
    page = visit.go()
    expect(page.locator("#figures-note")).to_contain_text("No UE has attached yet")
    gnb.ues("rnn")
    gnb.ues("crnet", ues=2, rate=5)
    expect(page.locator("#state")).to_have_text("live")
    expect(page.locator("#strip")).to_contain_text(f"{UES + 2} of {UES + 2}")
    for name in ("rnn 1", "crnet 1"):
        expect(figures(page, name, 2)).to_contain_text("±")
        expect(figures(page, name, 4)).to_contain_text(NUMBERS)
    before = figures(page, "rnn 1", 2).inner_text()
    expect(figures(page, "rnn 1", 2)).not_to_have_text(before)
    expect(page.locator("#cell")).to_have_text("cell default")
    expect(page.locator("#strip")).to_contain_text(f"of {10 * UES + 10} 1/s")
    expect(page.locator("#strip")).to_contain_text("Age p50 / p99")
    expect(page.locator("#flow-quality")).to_contain_text(NUMBERS)
    expect(page.locator("#flow-bits")).to_contain_text("bits")
    for chart in ("history", "plane", "rate", "latency"):
        expect(page.locator(f"#{chart}-chart canvas")).to_be_visible()
    page.get_by_label("Metric").select_option("SGCS")
    expect(page.get_by_role("heading", name="SGCS over time")).to_be_visible()
    page.get_by_role("checkbox", name="draw rnn 1").uncheck()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_contain_text("paused since")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_have_text("live")
    visit.check()


def test_a_swap_and_a_roll_out_by_click(gnb: Gnb, visit: Visit) -> None:
    """To another encoder at once, then to another version by a canary that is aborted, and one that is promoted."""
    gnb.ues("hyperrnn", version=1)
    page = visit.go("#models")
    row = page.locator("#models-table tbody tr").filter(has_text="hyperrnn 3")
    page.get_by_role("button", name="Load hyperrnn 3", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Load").click()
    expect(page.locator("#notices")).to_contain_text("hyperrnn 3 is loaded.")
    expect(row).to_contain_text("loaded, for all UEs")
    expect(row.locator("td").nth(1)).to_have_text(str(UES))
    expect(page.locator(".events").filter(visible=True)).to_contain_text("switched")

    def roll_out() -> Any:
        page.get_by_role("button", name="Roll out hyperrnn 1").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("spinbutton", name="Share of the UEs").fill("50")
        dialog.get_by_text("ends the roll-out by itself").click()
        dialog.get_by_role("button", name="Start").click()
        running = page.locator("#rollouts > *").first
        expect(running).to_contain_text("running")
        expect(running.locator(".difference")).to_contain_text("dB")
        expect(running.locator(".ues")).to_have_text(f"UEs: {UES // 2} new, {UES // 2} old")
        return running

    for verb, became in (("Abort", "aborted"), ("Promote", "promoted")):
        running = roll_out()
        running.get_by_role("button", name=verb).click()
        page.get_by_role("dialog").get_by_role("button", name=verb).click()
        expect(running).to_contain_text(became)
        expect(running.get_by_role("button", name=verb)).to_be_hidden()
    expect(page.locator("#models-table tbody tr").filter(has_text="hyperrnn 1")).to_contain_text("loaded, for all UEs")
    page.get_by_role("link", name="Live").click()
    expect(figures(page, "hyperrnn 1", 7)).to_have_text(str(UES))
    visit.check()


def test_what_the_gnb_refuses_is_said_in_its_words(gnb: Gnb, visit: Visit) -> None:
    gnb.ues("rnn")
    page = visit.go("#models")
    page.get_by_role("button", name="Unload rnn 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Unload").click()
    expect(page.locator(".notice.error")).to_contain_text(f"version: rnn/1 is decoding for UEs 0..{UES - 1}")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator(".notice")).to_have_count(0)


def test_reports_of_lengths_of_their_own_have_their_mean(gnb: Gnb, visit: Visit) -> None:
    """By the card's evaluation, and the most that one can have."""
    card = {"feedback_bits": 4096, "evaluation": {"feedback_bits": 757.9, "nmse_db": -21.5}}
    answer = {"parameters": {"card": card}}
    visit.page.route("**/v2/models/gmtc/versions/*", lambda route: route.fulfill(json=answer))
    row = visit.go("#models").locator("#models-table tbody tr").filter(has_text="gmtc")
    expect(row.locator("td").nth(2)).to_have_text("758 up to 4\u202f096")
    visit.check()


def test_alarms_are_shown_while_they_are_on(gnb: Gnb, visit: Visit) -> None:
    alarm = {"model": "rnn", "version": 1, "text": "UEs 0 to 3: 15 % of the reports were lost (usually 0 %)"}
    alarms = [{**alarm, "cleared_at": cleared} for cleared in (None, 1.0)]
    visit.page.route("**/v1/alarms", lambda route: route.fulfill(json={"alarms": alarms, "watched": []}))
    page = visit.go()
    expect(page.locator("#warnings li")).to_have_text([f"Alarm: rnn 1, {alarm['text']}."])
    alarms.clear()
    expect(page.locator("#warnings")).to_be_hidden()
    visit.check()


def test_a_gnb_that_was_away(gnb: Gnb, visit: Visit, tmp_path: Path) -> None:
    gnb.ues("rnn", token_file=tmp_path / "lease")
    page = visit.go()
    expect(figures(page, "rnn 1", 2)).to_contain_text("±")
    visit.check()
    gnb.kill()
    expect(page.locator("#state")).to_contain_text("gNB away since")
    before = get_reports(page)
    gnb.start()
    expect(page.locator("#state")).to_have_text("live")
    wait_for(lambda: get_reports(page) != before)
    page.get_by_role("link", name="Models").click()
    expect(page.locator("#models-table tbody tr").filter(has_text="rnn 1").first).to_contain_text("loaded")
    assert all("ERR_" in problem for problem in visit.problems)  # of the connection, none of ours


def get_reports(page: Page) -> str:
    return str(figures(page, "rnn 1", 2).inner_text())


def test_what_was_before_the_page_was_opened(gnb: Gnb, visit: Visit) -> None:
    """Its charts begin with the run, not with the page."""
    gnb.ues("rnn")
    wait_for(lambda: len(get(gnb.rest, "/v1/history")["times"]) > 3)
    first = get(gnb.rest, "/v1/history")["times"][0]
    page = visit.go()
    begun = page.evaluate("at => new Date(at * 1000).toTimeString().slice(0, 8)", first)
    for chart in ("history", "rate"):
        drawn = page.locator(f"#{chart}-chart")
        expect(drawn).to_have_attribute("aria-description", re.compile(f"^{begun} to "))
    visit.check()


def test_cells_of_one_store(gnb: Gnb, visit: Visit, spawn: Spawn, tmp_path: Path) -> None:
    """Two gNBs: the page of one has the figures of both, as they are stored, and its own live."""
    with visit.page.expect_response("**/v1/cells"):
        page = visit.go()
    choice = page.get_by_role("combobox", name="Cell")
    expect(choice).to_be_hidden()
    grpc_port, rest_port = free_ports(2)
    (folder := tmp_path / "east").mkdir()
    changed = {"grpc_port": grpc_port, "rest_port": rest_port, "run": "east", "ready_file": folder / "ready.json"}
    east = Gnb(spawn, folder, gnb.options | changed)
    east.start()
    gnb.ues("rnn")
    east.ues("rnn", ues=2, slots=8)
    east.ues("crnet", ues=1, slots=8)
    wait_for(lambda: get(gnb.rest, "/v1/nmse?cell=east")["overall"]["reports"] == 24)
    choice.select_option("east")
    expect(figures(page, "east: rnn 1", 7)).to_have_text("2")
    expect(figures(page, "east: rnn 1", 8)).to_have_text("16")
    (row,) = get(east.rest, "/v1/nmse?scheme=rnn")["schemes"]
    expect(figures(page, "east: rnn 1", 2)).to_contain_text(f"{abs(row['nmse_db']):.2f}")
    expect(page.locator("#figures tbody tr")).to_have_count(2)
    expect(page.locator("#cells-note")).to_contain_text("cell east as it is stored")
    drawn = page.locator("#history-chart")
    expect(drawn).to_have_attribute("aria-description", re.compile(" to "))
    choice.press("End")
    names = ["default: rnn 1", "east: crnet 1", "east: rnn 1"]
    expect(page.locator("#figures tbody th")).to_have_text(names)
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator("#history-chart + .legend")).to_have_text(re.compile(r"\s*".join(names)))
    assert page.evaluate("document.scrollingElement.scrollWidth") == 390
    choice.select_option("default, live")
    expect(page.locator("#figures tbody th")).to_have_text(["rnn 1"])
    expect(figures(page, "rnn 1", 7)).to_have_text(str(UES))
    expect(page.locator("#cells-note")).to_be_empty()
    visit.check()


def test_the_link_by_click(gnb: Gnb, visit: Visit) -> None:
    """A preset disturbs it, fields do, what the gNB refuses stands beside its field, and it is mended again."""
    gnb.ues("rnn")
    page = visit.go("#link")
    page.get_by_role("link", name="0 to 3").click()
    expect(page.get_by_role("heading", name="rnn, UEs 0 to 3")).to_be_visible()
    expect(page.locator("#air-now")).to_have_text("Now undisturbed, from the beginning.")
    lost = page.locator("#fleet-strip div").filter(has_text="Lost").locator("dd")
    expect(lost).to_contain_text("0 of")
    page.get_by_role("button", name="30 % lost in bursts").click()
    expect(page.locator("#air-now")).to_contain_text("30 % lost, bursts of 5")
    expect(lost).to_have_text(re.compile(r"^[1-9]"))
    expect(page.locator("#fleets-table tbody tr td").nth(1)).to_contain_text("30 % lost")
    visit.check()
    form = page.locator("#air-form")
    form.get_by_label("Bit error rate").fill("0.7")
    form.get_by_role("button", name="Set link").click()
    expect(page.locator("#air-form-ber-problem")).to_have_text("air ber: 0.7 is not in [0, 0.5]")
    expect(form.get_by_label("Bit error rate")).to_be_focused()
    form.get_by_label("Bit error rate").fill("")
    form.get_by_label("Burst").fill("1.1")
    form.get_by_role("button", name="Set link").click()
    expect(page.locator("#air-form-burst-problem")).to_contain_text("air burst: 1.1, with a loss of 0.3")
    form.get_by_label("Burst").fill("")
    form.get_by_label("Delay, slots").fill("5000")
    form.get_by_role("button", name="Set link").click()
    expect(page.locator("#air-form-delay-problem")).to_have_text("air delay: 5000 is not in [0, 1024]")
    page.get_by_role("button", name="4 slots late").click()
    expect(page.locator("#air-now")).to_contain_text("Now 4 slots late, from frame")
    expect(form.get_by_label("Delay, slots")).to_have_value("4")
    expect(page.locator("#fleets-table tbody tr td").nth(1)).to_have_text("4 slots late")
    page.get_by_role("button", name="Undisturbed").click()
    expect(page.locator("#air-now")).to_contain_text("Now undisturbed, from frame")
    expect(page.locator("#air-form .bad").filter(visible=True)).to_have_count(0)
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#figures tbody tr").filter(has_text="rnn 1, 30 % lost")).to_be_visible()


def test_the_rate_by_click(gnb: Gnb, visit: Visit) -> None:
    gnb.ues("gmtc", ues=2)
    page = visit.go("#link/0")
    bits = page.locator("#fleet-strip div").filter(has_text="Feedback").locator("dd")
    form = page.locator("#rate-form")
    form.get_by_label("Most bits").fill("100")
    form.get_by_role("button", name="Set rate").click()
    expect(page.locator("#bits-now")).to_contain_text("at most 100 bits")
    expect(bits).to_have_text(re.compile(r"^(100|\d\d) "))
    form.get_by_label("Most bits").fill("3")
    form.get_by_role("button", name="Set rate").click()
    expect(page.locator("#rate-form-bits-problem")).to_contain_text("bits: 3; this gmtc takes")
    page.get_by_role("button", name="Its own").click()
    expect(page.locator("#bits-now")).to_contain_text("Now its own")


def test_one_ue(gnb: Gnb, visit: Visit) -> None:
    gnb.ues("rnn")
    wait_for(lambda: get(gnb.rest, "/v1/ues")["total"] == UES)
    gnb.ues("crnet", ues=1)
    wait_for(lambda: get(gnb.rest, "/v1/ues")["total"] == UES + 1)
    page = visit.go("#ues")
    page.get_by_role("link", name="2", exact=True).click()
    expect(page.get_by_role("heading", name="UE 2")).to_be_visible()
    expect(page.locator("#ue-channel-note")).to_contain_text("by version 1")
    expect(page.get_by_role("img", name="Array response by angle")).to_be_visible()
    page.get_by_label("UE", exact=True).fill(str(UES))
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("img", name="Estimated: magnitude by delay and angle")).to_be_visible()
    page.get_by_role("combobox", name="Scheme").select_option("crnet")
    expect(page.locator("#ues-table tbody tr")).to_have_count(1)
    visit.check()
    visit.go("#ues/77")
    expect(page.locator("#ue-note")).to_have_text("ue: 77 is unknown; /v1/ues lists them")


def test_ten_thousand_ues(gnb: Gnb, visit: Visit) -> None:
    gnb.ues("rnn", ues=10_000, slots=1, rate="max")
    wait_for(lambda: get(gnb.rest, "/v1/nmse")["overall"]["reports"] == 10_000)
    page = visit.go("#ues")
    expect(page.locator("#ues-range")).to_have_text("1 to 50 of 10\u202f000")
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#ues-range")).to_have_text("51 to 100 of 10\u202f000")
    expect(page.locator("#ues-table tbody tr")).to_have_count(50)
    page.get_by_label("UE", exact=True).fill("9999")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="UE 9999")).to_be_visible()
    visit.check()


def test_a_token_is_asked_for(spawn: Spawn, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("an-open-secret")
    options = {"store": f"sqlite:///{tmp_path / 'gnb.sqlite'}", "ready_file": tmp_path / "ready.json"}
    spawn("gnb_server", grpc_port=0, rest_port=0, token_file=tmp_path / "token", **options)
    context = browser.new_context()
    visit = Visit(context.new_page(), ready(tmp_path / "ready.json")["rest"])
    page = visit.go("#models")

    def load() -> None:
        page.get_by_role("button", name="Load rnn 1", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Load").click()

    load()
    expect(page.locator(".notice.error")).to_contain_text("token: missing")
    dialog = page.get_by_role("dialog", name="Token")
    dialog.get_by_label("Token").fill("an-open-secret")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    load()
    expect(page.locator("#notices")).to_contain_text("rnn 1 is loaded.")
    assert "an-open-secret" not in page.evaluate("JSON.stringify(localStorage)")
    page.get_by_role("button", name="Token: kept").click()
    page.get_by_role("button", name="Forget").click()
    assert page.evaluate("sessionStorage.length") == 0
    spawn("ue_client", gnb=ready(tmp_path / "ready.json")["grpc"], scheme="rnn", ues=1, rate=10)
    page.get_by_role("link", name="Link").click()
    page.get_by_role("link", name="0", exact=True).click()
    page.get_by_role("button", name="10 % lost").click()
    expect(dialog).to_be_visible()
    context.close()


def test_by_keyboard(gnb: Gnb, visit: Visit) -> None:
    """The order is that of reading, the focus can be seen, a dialog gives it back."""
    page = visit.go("#models")
    expect(page.get_by_role("button", name="Load rnn 1", exact=True)).to_be_visible()

    def focused() -> str:
        return str(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )

    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(focused())
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order == ["Skip to the content", "Live", "UEs", "Models", "Link", "Token", "Theme: auto", "REST API"]
    page.get_by_role("link", name="Skip to the content").press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.get_by_role("button", name="Load rnn 1", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert focused() == "Load rnn 1"
    visit.check()


def test_themes(gnb: Gnb, browser: Browser) -> None:
    """As the system is, until somebody chooses."""
    context = browser.new_context(color_scheme="dark")
    page = Visit(context.new_page(), gnb.rest).go()

    def back() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = back()
    page.get_by_role("button", name="Theme: auto").click()
    light = back()
    assert light != dark
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert back() == light
    context.close()


@pytest.mark.parametrize("view", ["#live", "#ues/0", "#models", "#link/0"])
def test_on_a_phone_nothing_is_wider_than_it(gnb: Gnb, browser: Browser, view: str) -> None:
    gnb.ues("crnet", ues=1)
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = Visit(context.new_page(), gnb.rest).go(view)
    expect(page.locator("#strip")).to_contain_text("1 of 1")
    ready_part = {
        "#live": "#figures tbody tr",
        "#ues/0": "#ue-channel canvas",
        "#models": "#models-table tbody tr",
    }.get(view, "#fleet-chart canvas")
    expect(page.locator(ready_part).first).to_be_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") == 390
    context.close()


def test_the_documentation_of_rest_needs_no_other_host(gnb: Gnb, visit: Visit) -> None:
    page = visit.go("docs")
    expect(page.get_by_text("/v1/ues/{ue}/channel").first).to_be_visible()
    visit.check()

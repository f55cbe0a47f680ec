"""The picture in headless Chromium: drawn, zoomed, searched, read; under its own policy, without a network."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import recorded_session
from fakes.browser import Browser, browser
from fakes.recorded_session import INPUTS, TURN_NS, record_session
from fusioncharger.app.view_command import add_arguments, view_command
from fusioncharger.messages.inputs import HeartbeatReceived, MqttMessageRejected
from fusioncharger.replay.logs import open_logs
from fusioncharger.replay.view.drawing import draw
from fusioncharger.replay.view.page import page

HOSTILE = """</script><img src="http://evil.invalid/x" onerror="document.title='owned'"><b>bold</b>"""
BEATS = 1200
REJECTED_ROW = len(INPUTS) + BEATS
END_US = REJECTED_ROW * TURN_NS // 1000
GUTTER = "parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--gutter'))"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("session")
    beats = (HeartbeatReceived(connector=2, heartbeat_id=2**60 + n) for n in range(BEATS))
    rejected = MqttMessageRejected(topic=HOSTILE, reason=HOSTILE, size_bytes=1)
    log = record_session(directory, (*INPUTS, *beats, rejected))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert view_command(parser.parse_args([str(log), "-o", str(directory / "report.html")])) == 0
    return directory / "report.html"


@pytest.fixture(scope="module")
def shared_window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def window(shared_window: Browser, report: Path) -> Iterator[Browser]:
    """The picture, freshly opened. After every test: no script failed, nothing was loaded or refused."""
    shared_window.size(1400, 900)
    shared_window.prefer("light")
    shared_window.open(report)
    yield shared_window
    assert shared_window.log() == []
    loaded = shared_window.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded == []


def text(window: Browser, selector: str) -> str:
    return str(window.run("return document.querySelector(arguments[0]).textContent", selector))


def view(window: Browser) -> tuple[float, float]:
    """The stretch of time that is shown, µs, once it has been drawn."""
    window.run("return new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    first, last = window.run("return [View.from, View.to]")
    return first, last


def place(window: Browser, share: float) -> tuple[float, float]:
    """A point of connector 1's first lane, at that share of the axis."""
    script = (
        "const box = document.querySelector('#group-1 .lanes canvas').getBoundingClientRect();"
        "return [box.left + View.plotWidth * arguments[0], box.top + 8]"
    )
    x, y = window.run(script, share)
    return x, y


def test_it_is_drawn_soon_and_completely(window: Browser) -> None:
    parsed, drawn = window.run(
        "return [performance.getEntriesByType('navigation')[0].domContentLoadedEventStart,"
        " performance.getEntriesByName('timeline-drawn')[0].startTime]"
    )
    assert drawn - parsed < 3000
    groups = window.run("return [...document.querySelectorAll('.group h2')].map((one) => one.textContent)")
    assert [name.split(" ")[0] for name in groups] == ["System", "Connector", "Connector"]
    lanes = window.run(
        "return [...document.querySelectorAll('#group-1 .lanes .name')].map((one) => one.textContent)"
    )
    assert lanes == ["State", "Mode-phase", "Errors", "Events"]
    assert len(INPUTS) + BEATS + 1 == window.run("return Turns.rows")
    assert f"{len(INPUTS) + BEATS + 1:,} turns, replayed as recorded" in text(window, "#summary")


def test_bands_have_colours_and_texts(window: Browser) -> None:
    """The lane's pixels: the colour of the tone where no letter stands, and another where its text is."""
    script = (
        "const canvas = document.querySelector('#group-1 .lanes canvas');"
        "const pixels = canvas.getContext('2d').getImageData(30, 11, 300, 1).data;"
        "const colours = new Set();"
        "for (let at = 0; at < pixels.length; at += 4) colours.add(pixels.slice(at, at + 3).join());"
        "return [[...colours], Theme.colours.idle, canvas.height]"
    )
    colours, idle, height = window.run(script)
    tone = ",".join(str(int(idle[n : n + 2], 16)) for n in (1, 3, 5))
    assert tone in colours
    assert len(colours) > 2
    assert height >= 4 * 22


def test_lanes_and_curves_stand_on_one_axis(window: Browser) -> None:
    script = (
        "const lanes = document.querySelector('#group-1 .lanes canvas').getBoundingClientRect();"
        "const axis = document.querySelector('#axis canvas').getBoundingClientRect();"
        "return [...document.querySelectorAll('.u-over')].map((plot) => plot.getBoundingClientRect())"
        ".map((plot) => [plot.left - lanes.left, plot.width - View.plotWidth, axis.left - lanes.left])"
    )
    for width in (1400, 800, 390):
        window.size(width, 700)
        window.until("return View.width === document.getElementById('content').clientWidth && !drawing")
        view(window)
        offsets = window.run(script)
        assert offsets
        assert all(abs(value) < 0.6 for plot in offsets for value in plot), (width, offsets)


def test_a_curve_is_drawn_where_there_is_a_value_and_only_there(window: Browser) -> None:
    """The setpoint of connector 1 stands for one turn; before and after it there is none."""
    asked = next(n for n, one in enumerate(INPUTS) if type(one).__name__ == "SetpointRequested")
    script = (
        "const chart = Groups[1].panels[0].chart; const { left, top, width, height } = chart.bbox;"
        "const pixels = chart.ctx.getImageData(left, top, width, height).data;"
        "const wanted = Theme.colours.setpoint.match(/\\w\\w/g).map((one) => parseInt(one, 16));"
        "const columns = [];"
        "for (let x = 0; x < width; x += 1) for (let y = 0; y < height; y += 1) {"
        "  const at = 4 * (y * width + x);"
        "  const isIt = wanted.every((one, index) => Math.abs(one - pixels[at + index]) < 12);"
        "  if (isIt) { columns.push(x); break; }"
        "} return [columns, width]"
    )
    turn_us = TURN_NS / 1000
    window.run("View.show(arguments[0], arguments[1])", (asked - 1) * turn_us, (asked + 3) * turn_us)
    view(window)
    columns, width = window.run(script)
    assert min(columns) == pytest.approx(width / 4, abs=4)
    assert max(columns) == pytest.approx(width / 2, abs=4)


def test_wheel_zooms_at_the_mouse(window: Browser) -> None:
    first, last = view(window)
    x, y = place(window, 0.25)
    window.wheel(x, y, -700)
    zoomed = view(window)
    assert zoomed[1] - zoomed[0] < (last - first) / 2
    anchor = first + 0.25 * (last - first)
    assert abs((anchor - zoomed[0]) / (zoomed[1] - zoomed[0]) - 0.25) < 0.01
    window.wheel(x, y, 5000)
    assert view(window) == pytest.approx((first, last))


def test_drag_pans_and_shows_no_more_than_there_is(window: Browser) -> None:
    window.wheel(*place(window, 0.5), -700)
    first, last = view(window)
    start, end = place(window, 0.6), place(window, 0.4)
    window.drag(start, end)
    moved = view(window)
    assert moved[0] - first == pytest.approx((last - first) * 0.2, rel=0.05)
    assert moved[1] - moved[0] == pytest.approx(last - first)
    for _ in range(3):
        window.drag(place(window, 0.1), place(window, 0.9))
    assert view(window)[0] == window.run("return View.bounds()[0]")


def test_keys_zoom_pan_and_reset(window: Browser) -> None:
    whole = view(window)
    window.keys("+")
    window.keys("+")
    first, last = view(window)
    assert last - first == pytest.approx((whole[1] - whole[0]) * 0.36)
    window.run("View.pan(1e6)")
    before = view(window)
    window.keys("-")
    assert view(window)[1] - view(window)[0] == pytest.approx((before[1] - before[0]) / 0.6)
    window.keys("0")
    assert view(window) == pytest.approx(whole)


def test_a_drag_with_shift_zooms_to_what_it_covers(window: Browser) -> None:
    first, last = view(window)
    window.run(
        "const left = document.querySelector('#group-1 .lanes canvas').getBoundingClientRect().left;"
        "const at = (share) => ({ clientX: left + View.plotWidth * share, clientY: 150, bubbles: true,"
        "  shiftKey: true, button: 0, pointerId: 1 });"
        "const content = document.getElementById('content'); content.setPointerCapture = () => {};"
        "content.dispatchEvent(new PointerEvent('pointerdown', at(0.2)));"
        "content.dispatchEvent(new PointerEvent('pointermove', at(0.4)));"
        "content.dispatchEvent(new PointerEvent('pointerup', at(0.4)));"
    )
    span = last - first
    assert view(window) == pytest.approx((first + 0.2 * span, first + 0.4 * span), abs=span / 500)


def test_the_table_follows_the_cursor(window: Browser) -> None:
    share = 0.5
    window.move(*place(window, share))
    first, last = view(window)
    row = window.run("return Cursor.row")
    assert row == pytest.approx((first + share * (last - first)) / (TURN_NS / 1000), abs=3)
    window.until("return document.getElementById('detail').dataset.row == arguments[0]", row)
    assert text(window, "#turns .row.current .number") == str(row + 1)
    assert text(window, "#detail h2").startswith(f"Turn {row + 1}")
    # An integer beyond what a double holds is shown to the last digit.
    assert str(2**60 + row - len(INPUTS)) in text(window, "#detail")
    assert window.run("return document.querySelectorAll('#turns .row').length") < 60


def test_a_click_pins_the_cursor_and_escape_frees_it(window: Browser) -> None:
    window.click(*place(window, 0.3))
    row = window.run("return Cursor.row")
    window.move(*place(window, 0.7))
    assert window.run("return [Cursor.row, Cursor.pinned]") == [row, True]
    window.keys("\ue00c")
    window.move(*place(window, 0.71))
    assert window.run("return Cursor.row") > row
    assert window.run("return document.getElementById('pinned').hidden")


def test_detail_shows_input_outputs_and_what_changed(window: Browser) -> None:
    row = next(n for n, one in enumerate(INPUTS) if type(one).__name__ == "BspEventReceived")
    window.run("goToRow(arguments[0])", row)
    window.until("return document.getElementById('detail').dataset.row == arguments[0]", row)
    shown = text(window, "#detail")
    assert "BspEventReceived" in shown
    assert re.search(r"connector/1.*phaseCarDisconnectedNoKeyYet", shown)
    assert re.search(r"\d outputs?", shown)
    window.keys("\ue014")  # →
    window.until("return document.getElementById('detail').dataset.row == arguments[0]", row + 1)


def test_search_finds_goes_on_and_goes_back(window: Browser) -> None:
    window.run("document.getElementById('query').focus()")
    window.keys(*"setpointrequested", "\ue007")
    row = next(n for n, one in enumerate(INPUTS) if type(one).__name__ == "SetpointRequested")
    window.until("return Cursor.row === arguments[0]", row)
    window.until("return document.getElementById('search-status').textContent === '1 of 1 found'")
    window.run("document.getElementById('query').value = ''")
    window.keys(*"heartbeatreceived", "\ue007")
    found = BEATS + sum(type(one).__name__ == "HeartbeatReceived" for one in INPUTS)
    window.until("return Search.done && Search.rows.length === arguments[0]", found)
    window.until("return Turns.types[Turns.inputs[Cursor.row]] === 'HeartbeatReceived'")
    here = window.run("document.activeElement.blur(); return Cursor.row")
    window.keys("n")
    following = window.run("return Cursor.row")
    assert following > here
    window.keys("N")
    assert window.run("return Cursor.row") == here


def test_search_says_that_there_is_nothing_and_knows_turn_numbers(window: Browser) -> None:
    window.run("document.getElementById('query').focus()")
    window.keys(*"no such text", "\ue007")
    window.until("return document.getElementById('search-status').textContent === 'not found'")
    window.run("document.getElementById('query').value = ''")
    window.keys(*"#1000", "\ue007")
    window.until("return Cursor.row === 999")


def test_events_lead_to_their_turns(window: Browser) -> None:
    window.run("document.getElementById('tab-events').click()")
    window.until("return document.querySelectorAll('#events .row').length > 0")
    window.run(
        "[...document.querySelectorAll('#events .row')]"
        ".find((row) => row.textContent.includes('rejected')).click()"
    )
    assert window.run("return Cursor.row") == REJECTED_ROW
    window.keys("E")
    assert window.run("return Cursor.row") < REJECTED_ROW
    window.keys("e")
    assert window.run("return Cursor.row") == REJECTED_ROW


def test_hostile_strings_are_only_text(window: Browser) -> None:
    window.run("goToRow(arguments[0])", REJECTED_ROW)
    window.until("return document.getElementById('detail').dataset.row == arguments[0]", REJECTED_ROW)
    assert HOSTILE in text(window, "#detail")
    window.run("document.getElementById('tab-events').click()")
    window.until("return document.getElementById('events').textContent.includes('onerror')")
    x, y = window.run(
        "const group = Groups[0]; const box = group.lanes.canvas.getBoundingClientRect();"
        "return [box.left + View.x(arguments[0]), box.top + (group.lanes.names.length - 0.5) * ROW]",
        END_US,
    )
    window.move(x, y)
    window.until("return document.getElementById('tip').textContent.includes('<img')")
    assert window.run("return document.querySelectorAll('img, #detail b, #events b, #tip b').length") == 0
    assert "owned" not in window.run("return document.title")


def test_themes(window: Browser) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert window.run(colour) == "rgb(255, 255, 255)"
    window.prefer("dark")
    window.until(f"{colour} === 'rgb(20, 23, 28)'")
    window.run("document.getElementById('theme').click()")
    assert window.run(colour) == "rgb(255, 255, 255)"
    assert text(window, "#theme") == "Dark"


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (800, 600), (390, 844)])
def test_nothing_is_cut_off_at_the_side(window: Browser, width: int, height: int) -> None:
    window.size(width, height)
    window.until("return innerWidth === arguments[0] && !drawing", width)
    assert window.run("return document.documentElement.scrollWidth") <= width
    outside = window.run(
        "return [...document.querySelectorAll('header *, .tabs *')].filter((one) => one.offsetParent"
        "  && one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.id || one.tagName)"
    )
    assert outside == []
    for part in ("timeline", "turns"):
        assert window.run("return document.getElementById(arguments[0]).clientHeight", part) > 120


def test_on_a_narrow_screen_the_turn_has_a_tab_of_its_own(window: Browser) -> None:
    window.size(800, 600)
    window.until("return getComputedStyle(document.getElementById('detail')).display === 'none'")
    window.run("document.getElementById('tab-detail').click()")
    assert window.run("return document.getElementById('detail').clientHeight") > 100
    assert text(window, "#detail h2").startswith("Turn 1")
    above, below = window.run(
        "return ['.tabs', '#detail'].map((one) => document.querySelector(one).getBoundingClientRect().top)"
    )
    assert above < below
    x, y = window.run(
        "const box = document.getElementById('detail').getBoundingClientRect();"
        "return [box.left + 60, box.top + 60]"
    )
    assert window.run("return document.elementFromPoint(...arguments).closest('#detail') !== null", x, y)


def test_a_folded_group_is_not_drawn_and_comes_back(window: Browser) -> None:
    heading = "document.querySelector('#group-1 h2 button')"
    window.run(f"{heading}.click()")
    assert window.run("return document.querySelector('#group-1 .body').offsetHeight") == 0
    assert window.run(f"return {heading}.getAttribute('aria-expanded')") == "false"
    window.run(f"{heading}.click()")
    assert window.run("return document.querySelector('#group-1 .body').offsetHeight") > 80


def test_an_overview_says_that_it_is_one(tmp_path: Path, shared_window: Browser) -> None:
    beats = [HeartbeatReceived(connector=2, heartbeat_id=n) for n in range(50)]
    log = open_logs([record_session(tmp_path, (*INPUTS, *beats))])
    report = tmp_path / "overview.html"
    report.write_text(page(draw(log, turn_limit=len(INPUTS)), "log"), "utf-8")
    shared_window.open(report)
    rows = shared_window.run("return Turns.rows")
    assert rows < len(INPUTS)
    assert text(shared_window, "#summary").startswith("Overview: ")
    assert f"{len(INPUTS) + 50} turns" in text(shared_window, "#summary")
    assert text(shared_window, "#tab-turns") == f"Turns ({rows} of {len(INPUTS) + 50})"
    assert "This is an overview" in text(shared_window, "#notes")
    shared_window.run(f"return Search.find('#{len(INPUTS) + 9}')")
    assert text(shared_window, "#search-status") == "not found in the overview"
    assert shared_window.log() == []


def test_a_log_of_two_days_has_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_window: Browser
) -> None:
    monkeypatch.setattr(recorded_session, "TURN_NS", 3600 * 10**9)
    log = open_logs([record_session(tmp_path, INPUTS)])
    report = tmp_path / "days.html"
    report.write_text(page(draw(log), "log"), "utf-8")
    shared_window.open(report)
    assert re.match(r"2026-11-18, .* to 2026-11-1?[09], ", text(shared_window, "#summary"))
    assert re.match(r"11-18 \d\d:\d\d:\d\d\.\d{3}$", text(shared_window, "#turns .time"))
    assert "11-19" in shared_window.run("return View.ticks.map(({ text }) => text)")
    assert shared_window.log() == []

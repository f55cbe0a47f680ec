"""Chromium, driven through chromedriver (W3C WebDriver over HTTP): as much as the tests of the picture need."""

import base64
import contextlib
import http.client
import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from requirements import require_program

SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_S = 60.0


class Browser:
    """One window of a headless browser."""

    def __init__(self, port: int, profile: Path) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        options = {
            "binary": require_program("chromium"),
            "args": [*SWITCHES, f"--user-data-dir={profile}"],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": round(TIMEOUT_S * 1000)},
        }
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._path = f"/session/{session['sessionId']}"

    def _call(self, method: str, path: str, body: object = None) -> Any:
        text = None if method == "GET" else json.dumps({} if body is None else body)
        self._http.request(method, path, text, {"Content-Type": "application/json"})
        answer = json.loads(self._http.getresponse().read())["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def do(self, what: str, body: object = None) -> Any:
        return self._call("POST", f"{self._path}/{what}", body)

    def open(self, file: Path) -> None:
        self.do("url", {"url": file.as_uri()})
        self.until("return document.documentElement.dataset.ready === 'yes'")

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns; a promise is awaited."""
        return self.do("execute/sync", {"script": script, "args": list(arguments)})

    def until(self, condition: str, *arguments: object) -> None:
        """Wait, in the page, until a script's `return` is true: looked at in every frame."""
        waiting = (
            "const [args, done] = [[...arguments].slice(0, -1), arguments[arguments.length - 1]];"
            f"const condition = function() {{ {condition} }};"
            "const end = performance.now() + 20000;"
            "const look = () => { let met = false; try { met = condition(...args); } catch { met = false; }"
            "  if (met) done(''); else if (performance.now() > end) done('not met in 20 s');"
            "  else setTimeout(look, 10); }; look();"
        )
        failure = self.do("execute/async", {"script": waiting, "args": list(arguments)})
        assert not failure, f"{failure}: {condition}"

    def size(self, width: int, height: int) -> None:
        """Of the page's viewport."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def prefer(self, scheme: str) -> None:
        """light or dark, as the system would."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def cdp(self, command: str, **parameters: object) -> Any:
        return self.do("goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self) -> list[str]:
        """What the page wrote to the console since the last call: errors, refused loads."""
        return [entry["message"] for entry in self.do("se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("GET", f"{self._path}/screenshot"))

    def mouse(self, *actions: dict[str, object]) -> None:
        source = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.do("actions", {"actions": [source]})

    def move(self, x: float, y: float) -> None:
        self.mouse(moved(x, y))

    def click(self, x: float, y: float) -> None:
        self.mouse(moved(x, y), DOWN, UP)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse(moved(*start), DOWN, moved((start[0] + end[0]) / 2, end[1]), moved(*end), UP)

    def wheel(self, x: float, y: float, delta_y: int) -> None:
        scroll = {"type": "scroll", "x": round(x), "y": round(y), "deltaX": 0, "deltaY": delta_y, "duration": 0}
        self.do("actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [scroll]}]})

    def keys(self, *keys: str) -> None:
        presses = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.do("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self._call("DELETE", self._path)
        self._http.close()


DOWN: dict[str, object] = {"type": "pointerDown", "button": 0}
UP: dict[str, object] = {"type": "pointerUp", "button": 0}


def moved(x: float, y: float) -> dict[str, object]:
    return {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A fresh one, with a profile of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [require_program("chromedriver"), f"--port={port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert driver.stdout is not None
            for line in driver.stdout:
                if "started successfully" in line:
                    break
            opened = Browser(port, Path(profile))
            try:
                yield opened
            finally:
                opened.close()
        finally:
            driver.terminate()
            driver.wait(10)
            if driver.stdout is not None:
                driver.stdout.close()

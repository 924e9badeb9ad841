"""A real browser without a window: Chromium through its driver, in the W3C's protocol."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key under which the protocol names one


class Browser:
    """One window, until it is closed. Fails the test where there is no browser."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        found = [path for name in BROWSERS if (path := shutil.which(name))]
        driver = shutil.which("chromedriver")
        if not found or not driver:
            pytest.fail("no Chromium with its driver: install both (Debian: chromium, chromium-driver)", pytrace=False)
        self._driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True)
        assert self._driver.stdout
        port = next(match[1] for line in self._driver.stdout if (match := re.search(r"on port (\d+)\.", line)))
        self._address = f"http://127.0.0.1:{port}/session"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 f"--window-size={width},{height}"]
        wanted = {"goog:chromeOptions": {"binary": found[0], "args": flags},
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self._address += "/" + self._ask("", capabilities={"alwaysMatch": wanted})["sessionId"]

    def close(self) -> None:
        """Ends the browser."""
        try:
            self._ask("", "DELETE")
        finally:
            self._driver.kill()
            self._driver.communicate()

    def open(self, path: Path) -> None:
        """Loads a page from a file."""
        self._ask("/url", url=path.resolve().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body of JavaScript returns."""
        return self._ask("/execute/sync", script=script, args=arguments)

    def click(self, selector: str, number: int = 0) -> None:
        """Clicks on one of the elements that a selector finds, as a hand does."""
        found = self._ask("/elements", using="css selector", value=selector)
        self._ask(f"/element/{found[number][ELEMENT]}/click")

    def move(self, selector: str, x: int, y: int) -> None:
        """Moves the pointer to a place relative to the middle of an element."""
        (found, *_) = self._ask("/elements", using="css selector", value=selector)
        move = {"type": "pointerMove", "duration": 0, "origin": found, "x": x, "y": y}
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [move]}
        self._ask("/actions", actions=[pointer])

    def texts(self, selector: str) -> list[str]:
        """What elements say."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)

    def until(self, script: str, seconds: float = 20) -> None:
        """Waits for a condition of the page."""
        end = time.monotonic() + seconds
        while not self.run(f"return {script}"):
            assert time.monotonic() < end, script
            time.sleep(0.1)

    def complaints(self) -> list[str]:
        """Errors that the page has caused so far, each told once."""
        return [entry["message"] for entry in self._ask("/se/log", type="browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for so far, each told once."""
        events = [json.loads(entry["message"])["message"] for entry in self._ask("/se/log", type="performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def _ask(self, path: str, method: str = "POST", **body: Any) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        request = Request(self._address + path, data, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]

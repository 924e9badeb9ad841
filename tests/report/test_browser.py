"""The page in a real browser: what it shows, what a click does, and that it asks for nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Browser
from made_runs import leave
from program import environment

from ebmrun.report.page import page
from ebmrun.report.runs import read

pytestmark = pytest.mark.slow
REPORT = [sys.executable, "-c", "from ebmrun.report.cli import main; main()"]


@pytest.fixture
def browser() -> Iterator[Browser]:
    window = Browser()
    yield window
    window.close()


def opened(browser: Browser, folder: Path) -> Path:
    """The page of a folder, opened without a complaint."""
    place = folder / "page.html"
    place.write_text(page(read(folder), "Runs", "counts", "bp"))
    browser.open(place)
    assert browser.complaints() == [] and browser.requests() == [place.as_uri()]
    return place


def column(browser: Browser, table: str, number: int) -> list[str]:
    return browser.texts(f"#{table} tbody td:nth-child({number})")


def test_tables_sort_by_number_and_by_letter(browser: Browser, folder: Path) -> None:
    opened(browser, folder)
    head = browser.texts("#summary-table th")
    assert head[:4] == ["algo", "nudge.strength", "runs", "test accuracy"]
    assert column(browser, "summary-table", 4) == ["0.78 ± 0.14", "0.79 ± 0.14", "0.79 ± 0.14"]
    error = head.index("relative error")
    browser.click("#summary-table th", error)
    assert column(browser, "summary-table", error + 1) == ["0", "0.01", "0.1"]
    browser.click("#summary-table th", error)
    assert column(browser, "summary-table", error + 1) == ["0.1", "0.01", "0"]
    assert browser.texts("#summary-table th[aria-sort=descending]") == ["relative error"]
    browser.click("#tabs button", 1)  # each run
    assert len(column(browser, "summary-table", 1)) == 9
    browser.click("#summary-table th", browser.texts("#summary-table th").index("seed"))
    assert column(browser, "summary-table", 3) == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert browser.texts("#differences h2") == ["Differences from bp"]
    assert column(browser, "differences-table", 4) == ["0.01 ± 0.0058", "0.01 ± 0.0058"]


def test_curves_switch_on_and_off(browser: Browser, folder: Path) -> None:
    opened(browser, folder)
    count = "return document.querySelectorAll('#charts figure:first-child path.curve').length"
    assert browser.texts("#charts figcaption") == ["train/losslog", "test/losslog", "test/accuracy",
                                                   "alignment/relative_errorlog"]
    assert browser.run(count) == 9
    names = browser.texts("#legend button")
    assert names == ["hide all", "bp", "pc strength=0.01", "pc strength=0.1"]
    browser.click("#legend button", 2)
    assert browser.run(count) == 6 and browser.texts("#summary-table tr.off td:nth-child(2)") == ["0.01"]
    browser.click("#legend button", 2)
    assert browser.run(count) == 9
    browser.click("#legend button", 0)
    assert browser.run(count) == 0 and "Nothing to show." in browser.texts("#charts figure p")
    browser.click("#legend button", 0)
    browser.click("#keys button", 0)
    assert "train/losslog" not in browser.texts("#charts figcaption")


def test_a_chart_is_drawn_to_scale(browser: Browser, folder: Path) -> None:
    """The ends of a line lie on its axis where its values do, and the pointer reads them."""
    opened(browser, folder)
    browser.click("#charts figcaption button", 0)  # from logarithmic to linear
    path = browser.run("return document.querySelector('#charts path.curve').getAttribute('d')")
    (left, high), (right, low) = (tuple(map(float, part.split())) for part in path.replace("M", "").split("L"))
    ticks = {float(text): float(y) - 4 for text, y in browser.run(
        "return [...document.querySelectorAll('#charts figure:first-child text[text-anchor=end]')]"
        ".map(e => [e.textContent, e.getAttribute('y')])") if text != "step"}
    a, b = min(ticks), max(ticks)
    scale = (ticks[a] - ticks[b]) / (b - a)
    assert left < right and (low - high) / scale == pytest.approx(0.1, rel=0.02)  # a loss of 0.5, then of 0.4
    box = browser.run("const b = document.querySelector('#charts svg').getBoundingClientRect();"
                      "return [b.width, b.height]")
    browser.run("scrollTo(0, document.querySelector('#charts').offsetTop - 200)")
    browser.move("#charts svg", round((left / 400 - 0.5) * box[0]), round((high / 230 - 0.5) * box[1]))
    browser.until("!document.getElementById('tip').hidden")
    assert browser.texts("#tip")[0].endswith("step 1: 0.5")


def test_a_map_has_the_colours_of_its_values(browser: Browser, folder: Path) -> None:
    opened(browser, folder)
    assert browser.texts("#maps figcaption") == ["pc strength=0.01", "pc strength=0.1"]
    assert browser.texts("#maps .rows")[0] == "layer2layer1"  # the output on top
    pixels = browser.run("return [...document.querySelectorAll('#maps canvas')].map(c => "
                         "[...c.getContext('2d').getImageData(0, 0, 1, 2).data])")
    light = [[sum(each[0:3]), sum(each[4:7])] for each in pixels]
    # Errors of 0.005 and 0.02 against 0.05 and 0.2: brighter is larger, and equal ratios are equal distances.
    assert light[0][0] < light[0][1] < light[1][0] < light[1][1]
    assert pixels[0][0:3] == [13, 20, 62] and pixels[1][4:7] == [252, 247, 170]  # the ends of the scale
    assert browser.texts("#map-bar span")[:2] == ["0.005", "0.2; a cell is the largest value of its rows"]


def test_names_of_any_kind_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script>"
    leave(tmp_path / "evil", evil, 0, 0.9)
    leave(tmp_path / "bp", "bp", 0, 0.9)
    opened(browser, tmp_path)
    assert evil in column(browser, "summary-table", 1) and browser.texts("#legend button")[1] == evil


def test_a_page_of_nothing_says_so_without_a_complaint(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path)
    assert browser.run("return [...document.querySelectorAll('section')].filter(e => !e.hidden).length") == 0


def test_two_hundred_runs_fit_and_draw(browser: Browser, tmp_path: Path) -> None:
    """Of four layers and two thousand rows each: below 3 MB, and drawn within seconds."""
    draw = np.random.default_rng(0)
    steps = 2000
    table = {"step": np.arange(1, steps + 1)}
    layers = [f"alignment/{measure}/layer{layer}" for measure in ("relative_error", "angle") for layer in range(1, 5)]
    for key in ("train/loss", "train/accuracy", "test/loss", "test/accuracy", "alignment/relative_error",
                "alignment/angle", "relax/steps", "relax/residual", *layers):
        table[key] = np.exp(draw.standard_normal(steps)) / 7
    pd.DataFrame(table).to_csv(tmp_path / "metrics.csv", index=False)
    for number in range(200):
        run = leave(tmp_path / f"run-{number}", "pc", number % 5, 0.9, f"nudge.strength={number // 5 + 1}",
                    strength=number // 5 + 1.0)
        shutil.copy(tmp_path / "metrics.csv", run)
        summary = json.loads((run / "summary.json").read_text()) | {"steps": steps}
        (run / "summary.json").write_text(json.dumps(summary))
    start = time.monotonic()
    place = opened(browser, tmp_path)
    print(f"{place.stat().st_size / 1e6:.2f} MB, written and drawn in {time.monotonic() - start:.1f} s")
    assert 1e6 < place.stat().st_size < 3e6
    assert browser.run("return document.querySelectorAll('#charts path.curve').length") == 200 * 6
    before = time.monotonic()
    browser.click("#legend button", 0)
    assert time.monotonic() - before < 3


def test_a_page_follows_a_sweep(browser: Browser, tmp_path: Path) -> None:
    """Opened while the first of two runs trains: it shows that, then both, and stays as it was left."""
    runs = tmp_path / "runs"
    runs.mkdir()
    watch = subprocess.Popen([*REPORT, str(runs), "--watch", "0.5"], env=environment(), stdout=subprocess.PIPE,
                             text=True)
    sweep = None
    try:
        while not (runs / "report/report.html").is_file():
            assert watch.poll() is None
            time.sleep(0.1)
        words = ["logger=csv", "device=cpu", "trainer.log_every=1", "trainer.epochs=60", "seed=0,1"]
        sweep = subprocess.Popen([sys.executable, "-m", "ebmrun", "-m", *words, f"hydra.sweep.dir={runs}/sweep"],
                                 cwd=tmp_path, env=environment(OMP_NUM_THREADS="1"), stdout=subprocess.DEVNULL)
        browser.open(runs / "report/report.html")
        browser.until("/live, every 0.5 s/.test(document.body.textContent)")
        browser.until("/0 finished runs, 1 underway/.test(document.body.textContent)", 60)
        browser.until("document.querySelectorAll('#tabs button').length == 2")
        browser.run("state.tab = 'runs'; draw()")  # as a click does, which a reload may overtake
        browser.until("document.querySelectorAll('#summary-table progress').length == 1")
        browser.until("/2 finished runs, none left out/.test(document.body.textContent)", 120)
        browser.until("document.querySelectorAll('#summary-table tbody tr').length == 2")  # still each run
        assert sweep.wait(60) == 0
        watch.send_signal(signal.SIGINT)
        said = watch.communicate(timeout=60)[0]
        assert watch.returncode == 0 and said.splitlines()[-1].startswith("2 finished runs, none left out: ")
        browser.until("!document.querySelector('.live')")  # the last page waits for no other
        assert (runs / "report/report.md").is_file() and browser.complaints() == []
    finally:
        for process in (watch, sweep):
            if process and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()


def test_without_a_browser_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(pytest.fail.Exception, match=r"^no Chromium with its driver: install both .*\)$"):
        Browser()

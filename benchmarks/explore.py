"""How long the page of `tfnvp explore` takes to answer, in headless Chromium.

    python -m benchmarks.explore [MODEL ...] [--times N] [--screenshots DIR]

MODELs are names that ship or .keras files; all that ship unless named. For each control there is a
JSON line: the median and the most of N answers, in milliseconds, from the first request that
Chromium sends to the end of the last answer. The last line of a model has the seconds until the
page was ready. It needs the extra `explore`, playwright, and Debian's chromium.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]


def ready(address, process):
    """Waits until the page is there; gives the seconds."""
    started = time.monotonic()
    while process.poll() is None:
        try:
            urllib.request.urlopen(address).close()
            return time.monotonic() - started
        except OSError:
            time.sleep(0.2)
    sys.exit(f"tfnvp explore ended with status {process.returncode}")


class Tab:
    """The page in a tab, and how long its answers take.

    Args:
        tab: Playwright's page.
        times: how often each control is moved.
    """

    def __init__(self, tab, times):
        self.tab, self._times, self._answered = tab, times, []
        tab.on("requestfinished", self._note)

    def _note(self, request):
        if "/run/" in request.url:
            start = request.timing["startTime"]
            self._answered.append((start, start + request.timing["responseEnd"]))

    def moved(self, act, answers=1):
        """Gives the milliseconds until `act(i)` is answered, by so many requests in a row."""
        taken = []
        for i in range(self._times):
            self._answered.clear()
            act(i)
            while len(self._answered) < answers:
                self.tab.wait_for_timeout(20)
            starts, ends = zip(*self._answered, strict=True)
            taken.append(max(ends) - min(starts))
            self.tab.wait_for_timeout(200)
        return taken

    def slide(self, name, value):
        """Sets a slider by the number beside it."""
        number = self.tab.locator(f"#{name} input[type=number]")
        number.fill(f"{value:g}")
        number.press("Enter")
        number.blur()

    def choose(self, name, text):
        """Chooses one of several."""
        self.tab.click(f"#{name} label:has-text('{text}')")

    def open(self, title):
        """Opens a tab of the page."""
        self.tab.click(f"button[role=tab]:has-text('{title}')")
        self.tab.wait_for_timeout(500)


def of_images(tab):
    """Moves the controls of a model of images: yields their names, and the milliseconds."""
    for size in (1, 2):
        if size > 1:
            tab.choose("size", f"{size} x")
            tab.tab.wait_for_timeout(1000)
        yield f"size {size}: right", tab.moved(lambda i: tab.slide("right", 10 + i))
        # They come by a request for the seed, one for the image and one for the four.
        yield f"size {size}: four others", tab.moved(lambda i: tab.tab.click("#others"), 3)
    tab.choose("size", "1 x")
    tab.tab.wait_for_timeout(1000)
    yield "temperature", tab.moved(lambda i: tab.slide("temperature", 0.5 + 0.05 * (i % 10)))
    yield "finer scales", tab.moved(lambda i: tab.slide("drawn", 1 - i % 2))
    tab.open("A picture")
    yield "a picture", tab.moved(lambda i: tab.tab.click("#take"))


def of_vectors(tab):
    """Moves the slider of a model of two dimensions."""
    yield "layers", tab.moved(lambda i: tab.slide("layer", 1 + i % 5))


def main():
    from playwright.sync_api import sync_playwright

    from tfnvp.models import presets

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=presets.trained())
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--screenshots", type=Path)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        for model in options.models:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                port = listening.getsockname()[1]
            program = Path(sys.executable).with_name("tfnvp")
            command = [program, "explore", model, "--no-browser"]
            process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
            try:
                seconds = ready(f"http://127.0.0.1:{port}", process)
                page = chromium.new_page(viewport={"width": 1150, "height": 860})
                page.goto(f"http://127.0.0.1:{port}")
                page.wait_for_timeout(3000)
                name = Path(model).stem
                moved = of_images if page.query_selector("#right") else of_vectors
                for control, taken in moved(Tab(page, options.times)):
                    figures = {"median_ms": statistics.median(taken), "most_ms": max(taken)}
                    figures = {key: round(value) for key, value in figures.items()}
                    print(json.dumps({"model": name, "control": control, **figures}), flush=True)
                print(json.dumps({"model": name, "ready_s": round(seconds, 1)}), flush=True)
                if options.screenshots:
                    shoot(page, options.screenshots / name)
                page.close()
            finally:
                process.terminate()
                process.wait()


def shoot(page, path):
    """Writes screenshots of the page, beside each other as PATH_*.png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tab = Tab(page, 1)
    if page.query_selector("#layer"):
        last = int(page.get_attribute("#layer input[type=range]", "max"))
        for step in (0, 4, last):
            tab.slide("layer", step)
            page.wait_for_timeout(1500)
            page.screenshot(path=f"{path}_layer{step}.png")
        return
    page.screenshot(path=f"{path}_picture.png")
    page.reload()
    page.wait_for_timeout(3000)
    page.screenshot(path=f"{path}_between.png")


if __name__ == "__main__":
    main()

"""The page of `tfnvp explore` in headless Chromium."""

import asyncio
import functools
import signal
import socket
import threading
import urllib.parse

import numpy as np
import pytest
from helpers.browser import chromium, served
from PIL import Image

import tfnvp
from tfnvp.explore import layers, page, server
from tfnvp.explore.images import Images, Known

pytest.importorskip("gradio", reason="the extra `explore` is not installed")

LEVELS = 17


@pytest.fixture(scope="module", autouse=True)
def directory_of_pictures(tmp_path_factory):
    """Where Gradio keeps what it shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("shown")))
        yield


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def explored(tiny_model):
    flow = tiny_model((8, 8, 1), levels=LEVELS, num_scales=2, num_classes=3, label_dropout=0.1)
    images = np.random.default_rng(0).integers(0, LEVELS, (20, 8, 8, 1)).astype("uint8")
    return Images(flow, Known(images, "20 images of noise"))


@pytest.fixture(scope="module")
def of_images(explored):
    with served(server.application(page.of_images(explored, "tiny"))) as address:
        yield address


@pytest.fixture
def opened(browser):
    """opened(address): the page in a tab that has asked no other host, nor found a fault."""
    asked, faults = [], []
    tab = browser.new_page(viewport={"width": 1150, "height": 900})
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    tab.set_default_timeout(30_000)

    def opened(address):
        tab.goto(address)
        return tab

    yield opened
    tab.close()
    assert faults == []
    hosts = {urllib.parse.urlsplit(url).hostname for url in asked if not url.startswith("data:")}
    assert hosts - {None, ""} == {"127.0.0.1"}


def source(tab, name):
    """The address of a picture on the page, which another picture does not have."""
    tab.wait_for_selector(f"#{name} img")
    return tab.get_attribute(f"#{name} img", "src")


def changed(tab, name, before):
    """Waits for another picture."""
    tab.wait_for_function(
        "([name, before]) => { const img = document.querySelector(`#${name} img`);"
        " return img && img.src !== before && img.getAttribute('src') !== before; }",
        arg=[name, before],
    )
    return source(tab, name)


def slide(tab, name, value):
    number = tab.locator(f"#{name} input[type=number]")
    number.fill(str(value))
    number.press("Enter")
    number.blur()


def test_between_four_images(of_images, opened):
    tab = opened(of_images)
    at = source(tab, "between")
    seen = {at}
    for name, value in (("right", 90), ("down", 10), ("temperature", 0.5), ("drawn", 1)):
        slide(tab, name, value)
        at = changed(tab, "between", at)
        seen.add(at)
    tab.click("#anew")
    at = changed(tab, "between", at)
    corner = source(tab, "corner2")
    for name, choice in (("size", "2 x"), ("known", "samples")):
        tab.click(f"#{name} label:has-text('{choice}')")
        if name == "size":
            corner, at = changed(tab, "corner2", corner), changed(tab, "between", at)
    # There are samples of another size in either case.
    assert source(tab, "corner2") == corner
    tab.click("#others")
    corner, at = changed(tab, "corner2", corner), changed(tab, "between", at)
    tab.click("#class input")
    tab.click("ul[role=listbox] >> text='2'")
    changed(tab, "corner2", corner)
    changed(tab, "between", at)
    assert len(seen) == 5


def test_a_picture_is_dropped(of_images, opened, explored, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    scored = explored.score(explored.read(tmp_path / "noise.png"))
    tab = opened(of_images)
    tab.click("button[role=tab]:has-text('A picture')")
    pictures = ("seen", "back", "histogram", "near0")
    before = {name: source(tab, name) for name in pictures}
    tab.set_input_files("#file input[type=file]", tmp_path / "noise.png")
    tab.wait_for_selector(f"#words >> text={scored.bits:.3f} bits/dim")
    words = tab.inner_text("#words")
    assert f"class {scored.classes.argmax()} (" in words
    assert f"{scored.error:.1e}" in words and "of 20 images of noise" in words
    for name in pictures:
        changed(tab, name, before[name])
    assert f"{scored.distances[0]:.3f}" in tab.inner_text("#near0")
    tab.click("#take")
    tab.wait_for_selector("#near0 >> text=0.000")


def test_a_file_that_is_no_picture_is_refused_in_words(of_images, opened, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    tab = opened(of_images)
    tab.click("button[role=tab]:has-text('A picture')")
    source(tab, "back")
    tab.set_input_files("#file input[type=file]", tmp_path / "text.png")
    tab.wait_for_selector("#words >> text=text.png cannot be read: not a PNG or JPEG file")
    # The last picture's reconstruction is gone.
    tab.wait_for_selector("#back img", state="detached")


def test_layers_of_two_dimensions(randomize, opened):
    flow = randomize(tfnvp.VectorRealNVP(2, 2, (4,)))
    points = np.random.default_rng(0).normal(size=(20, 2))
    blocks = page.of_vectors(functools.partial(layers.steps, flow, points), [None], "two")
    with served(server.application(blocks)) as address:
        tab = opened(address)
        tab.wait_for_selector("#words >> text=After 6 of 6 layers: cells of common values")
        at = source(tab, "density")
        slide(tab, "layer", 1)
        tab.wait_for_selector("#words >> text=After 1 of 6 layers: coupling 2 and matrix")
        changed(tab, "density", at)


def test_the_server_ends_in_seconds_and_in_silence_with_requests_open(caplog):
    uvicorn = pytest.importorskip("uvicorn")
    asked = threading.Event()

    async def endless(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        await send({"type": "http.response.start", "status": 200})
        asked.set()
        await asyncio.Event().wait()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = server.of_application(endless, "127.0.0.1", 1)
        assert isinstance(ended, uvicorn.Server)
        thread = threading.Thread(target=ended.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        with socket.create_connection(listening.getsockname()) as tab:
            tab.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert asked.wait(30)
            ended.handle_exit(signal.SIGINT, None)
            thread.join(30)
            assert not thread.is_alive()
    assert caplog.records == []


def test_the_application_answers_to_its_own_names_alone(of_images):
    httpx = pytest.importorskip("httpx")
    assert httpx.get(of_images).status_code == 200
    assert "default-src 'self'" in httpx.get(of_images).headers["content-security-policy"]
    assert httpx.get(of_images, headers={"Host": "elsewhere.example"}).status_code == 400

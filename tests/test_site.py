"""The site that `make docs` builds: strict, whole, and of no other host."""

import html
import importlib.util
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
from mkdocs.exceptions import PluginError

import tfnvp
from tfnvp import cli
from tfnvp.training import command

ROOT = Path(__file__).parents[1]
# A browser fetches these when it opens a page; `link` only by these relations.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
LOADED |= {"audio": "src", "embed": "src", "object": "data", "input": "src", "image": "href"}
RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
RELATIONS |= {"modulepreload", "apple-touch-icon", "mask-icon", "shortcut"}
IN_STYLES = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
# Material's script fetches a repository's stars from GitHub, and a drawer of diagrams from a CDN,
# where a page has these attributes.
FETCHING = {"data-md-component": "source", "class": "mermaid"}


class Read(HTMLParser):
    """Finds what a page loads, where its links lead, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors, self.fetching = [], [], set(), []
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        self.anchors |= {attrs[name] for name in ("id", "name") if name in attrs}
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        if tag in LOADED and LOADED[tag] in attrs:
            self.loads.append(attrs[LOADED[tag]])
        if tag == "link" and RELATIONS & set(attrs.get("rel", "").split()):
            self.loads.append(attrs.get("href", ""))
        self.loads += [part.split()[0] for part in attrs.get("srcset", "").split(",") if part]
        self.loads += in_styles(attrs.get("style", ""))
        self.fetching += [v for k, v in FETCHING.items() if v in attrs.get(k, "").split()]

    def handle_data(self, data):
        if self._style:
            self.loads += in_styles(data)


def in_styles(text):
    return [url or imported for url, imported in IN_STYLES.findall(text)]


def foreign(url):
    """Tells whether a URL leads to another host."""
    parts = urlsplit(url)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", directory]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def read(site):
    """The pages by their paths from the site's root."""
    return {
        path.relative_to(site).as_posix(): Read(path.read_text()) for path in site.rglob("*.html")
    }


def test_no_page_loads_anything_of_another_host(site, read):
    assert "index.html" in read
    assert {page: urls for page in read if (urls := list(filter(foreign, read[page].loads)))} == {}
    assert {page: read[page].fetching for page in read if read[page].fetching} == {}
    styles = {path.name: in_styles(path.read_text()) for path in site.rglob("*.css")}
    assert {name: urls for name in styles if (urls := list(filter(foreign, styles[name])))} == {}


def test_what_pages_load_is_there(site, read):
    for page, found in read.items():
        for url in filter(lambda url: not urlsplit(url).scheme, found.loads):
            path = unquote(urlsplit(url).path)
            assert target(site, page, path).is_file(), (page, url)


def test_links_lead_to_pages_and_anchors_that_are_there(site, read):
    followed = 0
    for page, found in read.items():
        for url in filter(lambda url: not foreign(url), found.links):
            parts = urlsplit(url)
            path = target(site, page, unquote(parts.path)) if parts.path else site / page
            path = path / "index.html" if path.is_dir() else path
            assert path.is_file(), (page, url)
            name = path.relative_to(site).as_posix()
            if parts.fragment and name in read:
                assert unquote(parts.fragment) in read[name].anchors, (page, url)
            followed += 1
    assert followed > 1000


def test_no_page_shows_markdown(site, read):
    """A link that is none, such as one with a space before its parenthesis, fails no build."""
    for page in read:
        text = re.sub(
            r"<(code|pre|script|svg)\b.*?</\1>", "", (site / page).read_text(), flags=re.S
        )
        shown = html.unescape(re.sub(r"<[^>]+>", "", text))
        assert re.findall(r".*\] ?\(.*|.*\*\*\w.*|^#+ .*|.*\{\{.*", shown, re.MULTILINE) == [], page


def target(site, page, path):
    """The file that a page's URL leads to; the page of errors is served from anywhere."""
    directory = site if path.startswith("/") else (site / page).parent
    return (directory / path.lstrip("/")).resolve()


def public(module):
    """The names of a module that are no modules themselves."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return {name for name in names if not inspect.ismodule(getattr(module, name))}


MODULES = [name for name in tfnvp.__all__ if inspect.ismodule(getattr(tfnvp, name))]


@pytest.mark.parametrize("name", ["tfnvp", "tfnvp.models", *(f"tfnvp.{n}" for n in MODULES)])
def test_the_reference_has_every_public_name(read, name):
    module = importlib.import_module(name) if name != "tfnvp.presets" else tfnvp.presets
    names = public(module)
    anchors = read[f"reference/{name}.html"].anchors
    assert names and {n for n in names if f"{name}.{n}" not in anchors} == set()


def test_the_reference_has_every_command_and_option(site, read):
    page = "reference/command-line.html"
    shown = html.unescape(re.sub(r"<[^>]+>", "", (site / page).read_text()))
    group = typer.main.get_command(cli.app)
    assert {f"tfnvp-{name}" for name in group.commands} <= read[page].anchors
    trains = typer.main.get_command(command.app).params
    for parameter in (*trains, *(p for c in group.commands.values() for p in c.params)):
        context = typer.Context(group)
        name, text = parameter.get_help_record(context)
        assert f"{name} {text}".replace("`", "") in shown


@pytest.fixture(scope="module")
def cited_code():
    path = ROOT / "docs/hooks/cited_code.py"
    spec = importlib.util.spec_from_file_location("cited_code", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cited_lines_are_those_of_the_function(cited_code):
    text = cited_code.cited("a\n{{ lines of tfnvp/metrics.py: bits_per_dim }}\nb")
    source, start = inspect.getsourcelines(tfnvp.metrics.bits_per_dim)
    title = f"tfnvp/metrics.py, lines {start} to {start + len(source) - 1}: bits_per_dim"
    begin = f'a\n```{{.python title="{title}" linenums="{start}"}}\n'
    assert text == begin + "".join(source) + "```\nb"


@pytest.mark.parametrize(
    "citation",
    [
        "lines of tfnvp/metric.py: bits_per_dim",
        "lines of tfnvp/metrics.py: bits",
        'lines of tfnvp/metrics.py: bits_per_dim from "return" to "not there"',
        "line of tfnvp/metrics.py: bits_per_dim",
    ],
)
def test_what_is_not_there_cannot_be_cited(cited_code, citation):
    with pytest.raises(PluginError, match="cites"):
        cited_code.cited(f"{{{{ {citation} }}}}")


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="preconnect stylesheet" href="//fonts.example/x.css">',
        "<style>@import 'https://fonts.example/x.css';</style>",
        '<p style="background: url(http://other.example/x.png)">',
        '<img srcset="a.png 1x, https://other.example/b.png 2x">',
    ],
)
def test_what_is_of_another_host_is_found(text):
    assert len([url for url in Read(text).loads if foreign(url)]) == 1


def test_links_of_text_are_not_loaded():
    assert (
        Read('<a href="https://arxiv.org">x</a><link rel="canonical" href="https://x">').loads == []
    )

"""MathJax, in the site itself: pages with formulas load it from there."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

DIRECTORY = "assets/mathjax"
# `arithmatex` writes formulas within these brackets, and marks what holds them.
SETTINGS = """<script>
window.MathJax = {
  tex: {inlineMath: [["\\\\(", "\\\\)"]], displayMath: [["\\\\[", "\\\\]"]]},
  options: {ignoreHtmlClass: ".*", processHtmlClass: "arithmatex", enableMenu: false},
};
</script>"""


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    if 'class="arithmatex"' not in output:
        return output
    source = get_relative_url(f"{DIRECTORY}/tex-chtml.js", page.url)
    scripts = f'{SETTINGS}\n<script src="{source}" async></script>'
    return output.replace("</head>", f"{scripts}\n</head>")


def on_post_build(config: MkDocsConfig) -> None:
    with as_file(files("mathjax") / "static/mathjax/es5") as source:
        for name in ("tex-chtml.js", "output/chtml/fonts/woff-v2"):
            target = Path(config.site_dir, DIRECTORY, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if (source / name).is_dir():
                shutil.copytree(source / name, target, dirs_exist_ok=True)
            else:
                shutil.copy(source / name, target)

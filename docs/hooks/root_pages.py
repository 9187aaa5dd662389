"""The pages of the site that stand at the checkout's root, and links from and to them."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
NAMES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
# The README tells of the command line, in these sections.
SECTIONS = ("Training", "See it")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in NAMES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    readme = (ROOT / "README.md").read_text()
    head = "# Use the command line\n\n[Each command and option](reference/command-line.md)\n"
    content = "\n".join([head, *(_section(readme, title) for title in SECTIONS)])
    files.append(File.generated(config, "command-line.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to where the site has the pages: it has no directory docs/."""
    if page.file.generated_by:
        return markdown.replace("](docs/", "](")
    return re.sub(rf"\]\((?:\.\./)+({'|'.join(map(re.escape, NAMES))})", r"](\1", markdown)


def _section(text: str, title: str) -> str:
    found = re.search(rf"^## {title}\n.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise PluginError(f"README.md has no section {title!r}, which the site shows")
    return found[0]

"""Docstrings as the site's parser reads them: it knows sections by other names."""

import re
from typing import Any

import griffe


class Sections(griffe.Extension):
    """Calls the section of examples by the plural, and ends a line before code by one colon."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.M)

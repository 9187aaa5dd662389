"""The one thing that setup.cfg cannot say: the README as it reads outside of the repository."""

import re
from pathlib import Path

from setuptools import setup

readme = Path(__file__).with_name("README.md").read_text()
# On a package index pictures and relative links lead nowhere. The text of each link is the path of
# a file, which the source distribution has.
readme = re.sub(r"^!\[.*\]\(.*\)\n\n", "", readme, flags=re.MULTILINE)
setup(long_description=re.sub(r"\[([^\]]*)\]\((?!http)[^)]*\)", r"`\1`", readme))

"""The language of the figures, and the size at which chapters run."""

import os
from typing import Any

_RUSSIAN = {
    "noise": "шум",
    "data": "данные",
    "density": "плотность",
    "area": "площадь",
    "a small square": "маленький квадрат",
    "where it goes": "куда он переходит",
    "samples": "выборка",
    "by the formula": "по формуле",
    "seconds": "секунды",
    "growth as": "рост как",
}

_language = "en"


def speak(language: str) -> None:
    """Sets the language of all figures from here on: "en" or "ru"."""
    global _language
    if language not in ("en", "ru"):
        raise ValueError(f"language must be 'en' or 'ru', got language={language!r}")
    _language = language


def say(text: str) -> str:
    """Gives a figure's own words in the language that was set."""
    return text if _language == "en" else _RUSSIAN[text]


def size(full: Any, reduced: Any) -> Any:
    """Gives the full size, or the reduced one where the variable LECTURE_REDUCED is set.

    The tests set it, so that each chapter runs from top to bottom in seconds.
    """
    return reduced if os.environ.get("LECTURE_REDUCED") else full

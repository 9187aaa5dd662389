"""The training program from a checkout: `python -m train RECIPE`, launchers, and releases."""

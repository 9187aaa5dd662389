"""The training program: `python -m train RECIPE`."""

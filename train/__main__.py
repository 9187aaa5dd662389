"""`python -m train RECIPE` does what `tfnvp train RECIPE` does, from a checkout."""

from tfnvp.training.command import main

if __name__ == "__main__":
    main("python -m train")

"""Commands of `summidx` that are too large for `cli.py`: arguments in, lines or JSON out."""

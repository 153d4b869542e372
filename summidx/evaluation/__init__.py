"""How well the indexes find code: data sets of issues with their fixes, rankings of each, and figures over all."""

"""summidx: searchable summary indexes of code repositories. See ARCHITECTURE.md for the picture."""

from importlib.metadata import version

__version__ = version("summidx")

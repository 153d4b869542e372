"""summidx: searchable summary indexes of code repositories. See ARCHITECTURE.md for the picture."""

__version__ = "0.1.0"

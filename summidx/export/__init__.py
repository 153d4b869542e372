"""An index as files for others: JSON lines, Parquet, or a wiki of Markdown pages. Written whole or not at all."""

"""Search over published indexes: a text becomes weighted terms and a vector, tables answer, scores are fused."""

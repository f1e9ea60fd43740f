"""Names that only VeRL programs use, each re-exported at VeRL's own import path."""

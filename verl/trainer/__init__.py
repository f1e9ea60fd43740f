"""Training algorithms and metrics; no processes, no files."""

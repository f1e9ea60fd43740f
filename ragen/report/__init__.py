"""What a run shows: the report (``python -m ragen.report RUN``), the episodes in the terminal, and
the live console display of the trainer. Reads run folders; knows no trainer and no model."""

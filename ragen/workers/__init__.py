"""Workers that play: verl's actor worker with an engine and episodes beside it."""

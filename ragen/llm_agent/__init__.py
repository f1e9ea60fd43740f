"""Episodes: who plays which seed, text to tokens and back, one game as a coroutine, many as a batch."""

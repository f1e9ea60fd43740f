"""How the starter models are made: tokenizer, transcripts of mixed-skill play, pretraining."""

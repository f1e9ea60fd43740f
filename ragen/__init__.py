"""RAGEN: the playing side of GIFT (games, players, episodes, the agent trainer)."""

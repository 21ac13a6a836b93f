"""The recipe of the packaged mini T5; see `recipe`."""

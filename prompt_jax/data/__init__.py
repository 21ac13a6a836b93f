"""Tasks, templates, sources of rows, splits, tokenised rows and feeds."""

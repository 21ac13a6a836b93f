"""The run directory: the schema, readers and writers of its files, and what they show."""

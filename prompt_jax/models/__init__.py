"""Language models: the protocol, and T5."""

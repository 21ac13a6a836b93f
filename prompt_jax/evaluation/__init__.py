"""Evaluators, metrics and statistics."""

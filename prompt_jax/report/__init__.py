"""The report page of a run directory, and the numbers that it shares with the summary file."""

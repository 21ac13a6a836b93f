"""The benchmark suite, no part of the package: `python -m benchmarks --help`."""

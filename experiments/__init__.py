"""Studies, launchers and recipes: outside the package, run from a checkout."""

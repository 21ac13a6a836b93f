"""Programs that read run directories, or check the mathematics of a method alone."""

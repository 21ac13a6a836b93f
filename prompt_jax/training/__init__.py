"""Training: folding, step, loop, optimizers, tracking."""

"""servepath: one model, two serving paths, one pipeline."""

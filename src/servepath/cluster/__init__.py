"""What a cluster is, waiting on it, and what went wrong in it."""

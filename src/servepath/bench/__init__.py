"""Load, timing, statistics and the paired comparison of serving paths."""

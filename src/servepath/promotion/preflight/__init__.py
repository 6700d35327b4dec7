"""What a cluster lacks for a promotion, before anything is created: each thing with the command that fixes it."""

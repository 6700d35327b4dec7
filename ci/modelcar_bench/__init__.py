"""Measures a modelcar push beside its peers: `make bench-modelcar`.

Every tool runs as a process of its own, in rounds in which the order is drawn anew, against the same model and three
registries: a sink that discards, a sink that verifies, and Debian's docker-registry.
"""

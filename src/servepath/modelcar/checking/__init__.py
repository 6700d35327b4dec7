"""The checks behind `verify`."""

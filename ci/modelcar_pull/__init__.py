"""How long containerd takes to pull a modelcar, form by form. `python -m ci.modelcar_pull MODEL` (root, containerd)."""

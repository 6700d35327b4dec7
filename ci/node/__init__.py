"""The embedded node: a real single-node Kubernetes where no container engine runs."""

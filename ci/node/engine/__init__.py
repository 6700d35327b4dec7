"""What the engine image is made of: vLLM on a CPU, from package registries alone."""

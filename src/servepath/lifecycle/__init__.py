"""What KServe gives and costs besides latency: starts, stops, rollouts, its control plane, and the model's way in."""

"""What runs the pipeline: workflows, and the embedded node."""

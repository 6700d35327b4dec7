"""What is attached to a pushed modelcar: SBOM, provenance, ModelPack manifest."""

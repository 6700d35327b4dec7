"""The serving paths: raw vLLM and KServe."""

"""The load generator against GuideLLM: their definitions point by point, and what each costs the machine."""

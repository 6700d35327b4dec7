"""A live canary: two InferenceServices behind one weighted HTTPRoute on a stable hostname."""

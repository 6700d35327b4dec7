"""Check and install Gateway API, cert-manager, KServe and the gateway."""

"""A GKE cluster for one run: Google's credentials, a kubeconfig that is deleted again, and Artifact Registry."""

"""What a modelcar is made of: layers, plain, cut anew or compressed, and the manifests over them."""

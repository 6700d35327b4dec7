"""How blobs move: read once, hashed on the way, sent where they are missing."""

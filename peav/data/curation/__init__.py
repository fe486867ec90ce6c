"""`peav data`: numbers and pictures of manifests, checks, and new manifests out of old ones."""

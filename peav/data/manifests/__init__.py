"""What is said of the clips: the records that are packed, and the manifests (Lhotse) that describe what was."""

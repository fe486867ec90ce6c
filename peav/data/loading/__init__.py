"""From manifests and shards to batches: plans, decoding, augmentation, collation, and a loader that resumes."""

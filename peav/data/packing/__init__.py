"""`peav prepare`: from records and media files to shards and manifests, with a journal for runs that were killed."""

"""peav's models as models of other libraries: sentence-transformers and mteb, each an optional extra."""

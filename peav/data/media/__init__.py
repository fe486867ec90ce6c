"""Media files: what they hold, their frames and samples, spans of them, and how they are checked and encoded anew."""

"""A language model that reads videos: Llama-3 with a video encoder as its eyes (paper §4.3)."""

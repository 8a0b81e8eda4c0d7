"""Search pictures and captions with a trained SCAN: a shortlist by FAISS, then the model's own scores."""

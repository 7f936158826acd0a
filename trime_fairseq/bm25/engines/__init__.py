"""The search engines of BM25 batching."""

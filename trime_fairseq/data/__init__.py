"""In which order: text order, similarity or any other, and a context window for evaluation.

Imports nothing, so that ``provenance``, ``export`` and ``predefined`` work without fairseq.
"""

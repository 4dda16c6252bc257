"""Rerankers deeper than the additive one, measured: a cross-encoder and late interaction (`python -m models.deep`)."""

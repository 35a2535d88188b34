"""Fictional encyclopedias: articles that nobody could have read before, and questions that only they answer."""

"""Retrievers: passages of a corpus for a query, whatever finds them."""

"""EOIR: encoder-only image registration (arXiv 2509.00451)."""

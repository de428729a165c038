"""NCF: a neural correspondence field, optimised anew for every pair (arXiv 2503.00760)."""

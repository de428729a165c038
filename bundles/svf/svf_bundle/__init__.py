"""SVF: a dense stationary velocity, optimised anew for every pair."""

"""Patch FCN: velocities of patches, stage by stage, made smooth by a differential operator (arXiv 2404.04244)."""

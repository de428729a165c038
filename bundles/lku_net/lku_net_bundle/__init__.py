"""LKU-Net: a U-Net with large kernels for registration (arXiv 2208.04939)."""

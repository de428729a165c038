"""TransMorph: a Swin transformer with a convolutional decoder for registration (arXiv 2111.10480)."""

"""SYMNet: two velocities that carry both images to a middle between them (arXiv 2003.09514)."""

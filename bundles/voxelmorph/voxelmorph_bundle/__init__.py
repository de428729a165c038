"""VoxelMorph: a U-Net that maps a pair of images to their displacement or velocity (arXiv 1809.05231)."""

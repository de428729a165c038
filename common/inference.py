"""From two files to a transform: the pairs to register, and what a registration leaves on disk.

A network works on a grid of its own (``common.transforms.ToNetworkGridd``); everything written here is on the user's
fixed image's grid, in millimeters, as ITK reads it.
"""

"""What every registration bundle shares: operators, losses, metrics, geometry, data and engine joints.

Imports inside this package are relative, because `regbundles pack` vendors it into each packed bundle.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"

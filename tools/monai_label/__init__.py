"""A MONAI Label server whose models carry the label map of one study over to another by registration.

It runs in an environment of its own (``make label-server``), because MONAI Label needs numpy 1.26.
"""

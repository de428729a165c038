"""What the process that is forked (:mod:`tests.reliability.warm`) has imported: all that the commands import late."""

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from monai.bundle.config_item import ComponentLocator

from common.transform_files import write_composite

LATE = (
    "common.affine",
    "common.checkpoint",
    "common.cohort",
    "common.losses",
    "matplotlib.pyplot",
    "numba",
    "tools.__main__",
    "tools.data.folder",
    "tools.evaluate",
    "tools.register",
    "torch.utils.tensorboard",
)

for module in LATE:
    import_module(module)
ComponentLocator().get_component_module_name("Compose")  # imports all of MONAI
with TemporaryDirectory() as folder:  # loads ITK's modules; on one thread torch starts no other for this
    write_composite(Path(folder) / "identity.h5", torch.zeros(1, 3, 2, 2, 2), np.eye(4), np.eye(4))

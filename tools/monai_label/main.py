"""Where MONAI Label looks for an app's class: a training in the background is started this way."""

from tools.monai_label.app import RegistrationApp

__all__ = ["RegistrationApp"]

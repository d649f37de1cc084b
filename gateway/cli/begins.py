"""What every command begins with: the settings of its environment."""

import os
import sys

from gateway.settings import Settings, check_names, read_settings, take_sealing_keys


def settings() -> Settings:
    """The settings of the environment, from which the sealing keys are then taken out: a command reads them once.

    Raises ConfigError that names the variables that are wrong, never a value.
    """
    for name in check_names(os.environ):
        sys.stderr.write(f"Note: {name} is in the environment, is no setting, and has no effect.\n")
    try:
        return read_settings(os.environ)
    finally:
        take_sealing_keys(os.environ)

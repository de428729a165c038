"""Where the checkout lies that these tools belong to, and its commit."""

import subprocess
from pathlib import Path

__all__ = ["REPOSITORY", "commit"]

REPOSITORY = Path(__file__).parent.parent


def commit() -> str:
    """Short hash of the checkout, ``+dirty`` with uncommitted changes but results; "unknown" outside of one."""
    try:
        arguments = {"cwd": REPOSITORY, "capture_output": True, "text": True, "check": True}
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **arguments).stdout.strip()
        paths = [".", ":(exclude)results", ":(exclude)docs"]  # what a benchmark writes changes no later row
        changed = subprocess.run(["git", "status", "--porcelain", "--", *paths], **arguments).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+dirty" if changed else "")

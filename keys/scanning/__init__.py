"""Finds secrets of this portal in files, folders and git repositories, on all processors.

It imports neither Django nor the models, so that the processes that read start in a blink. It says where a
secret stands and hands the secret to whoever asked, to be looked up; it prints and keeps nothing.
"""

from keys.scanning.files import Hit, Result, Skipped
from keys.scanning.run import scan

__all__ = ["Hit", "Result", "Skipped", "scan"]

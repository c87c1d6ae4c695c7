"""pygal, without its hook for plugins, of which we have none: Python warns of its kind at each
import that fails, and warnings are errors here."""

import sys

import pygal

sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, pygal.PluginImportFixer)]

__all__ = ["pygal"]

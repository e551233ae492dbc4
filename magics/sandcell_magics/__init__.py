"""The %sandbox commands and their IPython face."""

# Generated from _async by scripts/unasync.py; change it there.
"""The client for ordinary code, generated from `_async`."""

"""Programs that run inside a sandbox. They import the standard library only, and nothing of ours.

Everything they say is hostile to those outside: a cell may have taken their place.
"""

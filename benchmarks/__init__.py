"""Ratios against plain ipykernel; run by `make bench`."""

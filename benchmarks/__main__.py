"""`python -m benchmarks`: everything that is measured."""

from benchmarks.against_ipykernel import main

main()

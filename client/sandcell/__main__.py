"""`python -m sandcell` is `sandcell`."""

from sandcell.cli import main

if __name__ == "__main__":
    main()

"""`python -m sandcell_kernel -f CONNECTION_FILE`."""

from sandcell_kernel.app import main

main()

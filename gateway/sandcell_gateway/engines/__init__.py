"""How a sandbox is made. `base` is the contract; engines are found by entry point."""

"""The local kernel: a thin proxy between a Jupyter front end and a sandbox session."""

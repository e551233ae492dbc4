"""What ran in a session, read from its journal: code, outputs, notebooks. Pure."""

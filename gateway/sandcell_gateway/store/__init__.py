"""What outlives the gateway: one SQLite file, changed only through here."""

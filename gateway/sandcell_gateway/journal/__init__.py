"""A session's record of every message: numbered, hash-chained, bounded, readable by number.

`journal` is what the shim writes and reads; `records` and `verify` are pure, and
`segments` has what an offline reader needs. Nothing here imports a web framework or
a database.
"""

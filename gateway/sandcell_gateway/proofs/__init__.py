"""Signed statements about journals: made by the gateway, checked by anybody, offline.

`proof` and `check` are pure; `archive` and `audit` read an exported history. None of them
needs a gateway, a store or a network. `keys` is the gateway's own.
"""

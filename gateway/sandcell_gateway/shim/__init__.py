"""One small process per session, between the gateway and the sandbox.

It outlives the gateway, holds the kernel's sockets, numbers and journals every
message, and says why a kernel or sandbox died.
"""

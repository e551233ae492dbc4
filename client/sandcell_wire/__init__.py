"""What both ends of the wire agree on: frames, messages, states, codes and models.

Nothing here opens a socket or reads the environment; `zmq_stream` drives ZMQ
sockets that others made, at both ends of the path. Importing this package
imports none of its modules: `models` needs pydantic, the rest only the
standard library, and the local kernel starts before it needs pydantic.
"""

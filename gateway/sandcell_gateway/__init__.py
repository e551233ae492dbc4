"""The gateway: control plane and router of sandbox sessions."""

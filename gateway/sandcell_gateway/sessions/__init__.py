"""The gateway's sessions: what is asked of them, and what keeps them so."""

"""Who may use the gateway, what for, how often, and until when."""

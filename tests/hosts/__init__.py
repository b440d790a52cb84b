"""Several hosts: what is cut off, slow, restarted, or has a clock of its own."""

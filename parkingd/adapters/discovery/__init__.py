"""Where addresses of other nodes come from. Untrusted: it yields addresses only."""

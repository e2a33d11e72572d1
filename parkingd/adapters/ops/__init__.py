"""The ops port: health, status and metrics over HTTP, made in the daemon's own loop."""

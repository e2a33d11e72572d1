"""Pure state machines: what a node does with messages, requests, facts and time."""

"""Pure data: what is replicated and how it is joined."""

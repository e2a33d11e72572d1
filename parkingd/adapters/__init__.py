"""Thin shells around sockets, disk, clocks and discovery."""

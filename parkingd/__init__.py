"""parkingd: the car park that no single machine can take down."""

__version__ = "0.1.0"

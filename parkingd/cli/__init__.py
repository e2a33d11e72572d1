"""The two commands: parkingd and parkingd-ctl."""

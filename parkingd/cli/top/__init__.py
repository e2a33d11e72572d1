"""The dashboard: `parkingd-ctl top`."""

"""The servers under load, one a file; the peers' processes are modules that can be run."""

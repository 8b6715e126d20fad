"""Load on a whole Darkroom while everything in it is killed, frozen and drained. `python -m tests.system.chaos`"""

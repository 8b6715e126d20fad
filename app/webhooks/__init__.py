"""Telling others that a job has ended: where to, how safely, how often."""

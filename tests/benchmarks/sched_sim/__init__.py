"""Scheduling policies on a virtual clock."""

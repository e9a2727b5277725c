"""Rooms of tools/check_dataset.py: sources -> scan -> tally -> findings, then three ways to show them."""

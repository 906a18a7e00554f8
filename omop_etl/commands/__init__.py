"""Verbs of the rooms, each registered in `omop_etl/cli.py`."""

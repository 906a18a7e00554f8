"""All that speaks OMOP. Start reading in `stages.py`: it states the data's way once."""

__version__ = "0.1.0"

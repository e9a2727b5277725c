"""The rooms of tools/predict.py: which files, which network, what is written."""

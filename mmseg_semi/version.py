"""The package's version, apart so that ``setup.py`` can read it without any dependency."""
__version__ = '0.1.0'

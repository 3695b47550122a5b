"""The API of the Python tool `databricks-oauth-rotator`, carried out by the program `dbx-rotator`."""

from .rotator import DatabricksOAuthRotator

__version__ = "1.0.0"
__all__ = ["DatabricksOAuthRotator"]

"""`python -m dbx_rotator`: the program that belongs to this Python."""

import sys

from ._program import NAME, become

become(NAME, sys.argv[1:])

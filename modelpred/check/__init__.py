"""`modelpred check`: what the pipeline would make of a file, and what that would cost.

`looking` reads the table and waits for nothing that computes; `trial` trains a few models on its
rows and says from that how long the stages will take. Imported on its own, where it is wanted.
"""

from modelpred.check.inspection import Checked, check, config_of, family

__all__ = ["Checked", "check", "config_of", "family"]

"""`modelpred check`: reports how the pipeline would read a file, and estimates the time of a run.

`inspection` reads the table without importing torch. `trial` trains a few models on its rows to
estimate the time of the stages; it is imported only when it is used.
"""

from modelpred.check.inspection import Checked, check, config_of, decisions_text, family

__all__ = ["Checked", "check", "config_of", "decisions_text", "family"]

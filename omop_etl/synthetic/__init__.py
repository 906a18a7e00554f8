"""Hospitals that do not exist, in source formats, with the truth beside them.

`generate` writes sites of unequal size whose patients follow the published figures of PALMARES-2, with what real sites
have: local codes, old codes, missing and wrong values, malformed records, patients of two sites. What is drawn stands in
`mappings/studies/palmares2/synthetic.toml`; what must be found again stands in `truth/`. The same seed gives the same
bytes, whatever the number of processes.
"""

from omop_etl.synthetic.generate import Synthetic, generate

__all__ = ["Synthetic", "generate"]

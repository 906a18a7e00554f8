"""Locks: a state of the registry, frozen at a cut-off date, that can be cited, held against every byte, and made again.

    create(home, name, cut_off=…)      build, derive, answer eligibility and publish from the intake as it is now, and seal it
    verify(home, name)                 every byte is what was sealed
    diff(home, one, other)             who came, who went, whose endpoint changed, and why: counts; persons stay inside
    listing(home)                      the locks that there are
    rebuild(home, name)                make it again from its manifest and compare every file

<home>/locks/<NAME>/     manifest.json    hashes of inputs, mappings, vocabulary, code, environment and outputs; sites with their dates
                         CITATION.txt     how to cite it, with the hash of the manifest
                         datasets/        what may leave: see omop_etl.publish
                         cohort/, derived/  who they are and what was derived, with dates: both stay inside
<home>/locks/register.ndjson   one line per lock that was sealed, each with the hash of the line before
<home>/locks/.inputs/          the submissions that locks were made from, each file once, by its hash; they stay inside
"""

from omop_etl.locks.create import Lock, Rebuilt, create, rebuild
from omop_etl.locks.difference import Difference, diff
from omop_etl.locks.verification import Verification, listing, verify

__all__ = ["Difference", "Lock", "Rebuilt", "Verification", "create", "diff", "listing", "rebuild", "verify"]

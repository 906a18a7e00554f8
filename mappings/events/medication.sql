-- Medication → no row of its own: its code stands in the exposures that refer to it.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN modified THEN 'Q-MODIFIER'
    END AS reason,
    code_codings
FROM flat

-- ## merged
SELECT key, CASE WHEN key IN (SELECT key FROM medication_in_use) THEN 'M-MEDICATION' ELSE 'X-UNREFERENCED' END AS reason FROM stage

-- What the sites are asked, or what is adjudicated, about patients who are in: beyond the eligibility criteria. One row per
-- person and code; the codes stand in reasons.csv (kind finding).
SELECT person_id, 'line-disagreement' AS code FROM disagreement
UNION
SELECT person_id, 'line-unmapped-drug' FROM line WHERE list_contains(flags, 'unmapped-drug')
UNION
SELECT person_id, 'new-site-undeclared' FROM state WHERE name = 'new-site-undeclared'
UNION
SELECT person_id, 'early-progression' FROM endpoint WHERE list_contains(flags, 'early-progression')
UNION
SELECT person_id, 'consent-after-end' FROM endpoint WHERE paramcd = 'RWOS' AND list_contains(flags, 'entry-after-end')

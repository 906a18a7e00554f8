"""What the sources share that read FHIR over the web: the client, signing in, the spool, and what a run leaves behind."""

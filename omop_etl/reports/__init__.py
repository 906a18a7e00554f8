"""Reports: what people look at. `quality` for the central team and the sites, `survival` and `ml` for the study."""

"""What the project claims of standards, generated from its tests and its mappings, so that it cannot claim more than it does."""

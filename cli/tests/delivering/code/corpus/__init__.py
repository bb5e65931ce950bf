"""Code that declares images in the ways people do, which both readers read alike."""

"""Reports that stand alone: curves, tables and pictures as HTML in one file."""

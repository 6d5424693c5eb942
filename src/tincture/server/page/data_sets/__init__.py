"""The part of the Train tab in which data sets are looked through and edited."""

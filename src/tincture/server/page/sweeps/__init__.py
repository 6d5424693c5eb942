"""The part of the Runs tab that makes and shows sweeps."""

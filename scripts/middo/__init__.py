"""What the programs of the workflow share: small modules of plain functions."""

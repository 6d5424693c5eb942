"""Files that the server holds: data sets, uploads, adapters, pictures."""

"""Files that the server keeps: data sets, uploads, adapters, pictures."""

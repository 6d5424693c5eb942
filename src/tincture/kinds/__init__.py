"""What is known of each kind of adapter without loading torch: names, folders, defaults, checks, options."""

"""Workers on the machines of a Ray cluster. Only the processes that speak with it import Ray; the server does not."""

"""The streaming loop: a job cut into chunks, fetched, run and stored at once, in bounded memory."""
